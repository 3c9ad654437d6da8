import org.slmc.Slm;

/**
 * Calls Slm as it can't be meant: FILE OTHER, a weight file and a file that is none. Prints what each call threw:
 * its name, class, message and, of an SlmException, its status.
 */
final class Refusals {
  private interface Call {
    void run() throws Exception;
  }

  public static void main(String[] arguments) throws Exception {
    String file = arguments[0];
    long model = Slm.open(file, null);
    int vocabulary = Slm.vocabSize(model);
    int context = Slm.context(model);
    long session = Slm.newSession(model, 0, 0);
    int[] one = {1};
    float[] logits = new float[vocabulary];

    refused("open without a path", () -> Slm.open(null, null));
    refused("open no file", () -> Slm.open(file + "m\u00f6d\u00e8l \ud83d\ude00", null));
    refused("open up to a zero", () -> Slm.open(file + "\0beyond", null));
    refused("open another file", () -> Slm.open(arguments[1], null));
    refused("open with no such kernels", () -> Slm.open(file, "abacus"));
    refused("ask no model", () -> Slm.vocabSize(0));
    refused("ask no model's context", () -> Slm.context(0));
    refused("ask no model's kernels", () -> Slm.kernels(0));
    refused("new session of no model", () -> Slm.newSession(0, 0, 1));
    refused("new session beyond the context", () -> Slm.newSession(model, context + 1, 1));
    refused("new session of no threads", () -> Slm.newSession(model, 0, -1));
    refused("logits before a token", () -> Slm.logits(session, logits));
    refused("top before a token", () -> Slm.topK(session, one, new float[1]));
    refused("continuations before a token", () -> Slm.continuations(session, new int[][] {one}));
    refused("prefill no session", () -> Slm.prefill(0, one));
    refused("prefill null", () -> Slm.prefill(session, null));
    refused("prefill nothing", () -> Slm.prefill(session, new int[0]));
    refused("prefill beyond the vocabulary", () -> Slm.prefill(session, new int[] {1, vocabulary}));
    refused("prefill beyond the context", () -> Slm.prefill(session, new int[context + 1]));
    refused("decode no session", () -> Slm.decode(0, 1));
    refused("decode below the vocabulary", () -> Slm.decode(session, -1));
    refused("decode to no numbers", () -> Slm.decode(session, vocabulary - 1));
    Slm.cancel(session);
    refused("decode when cancelled", () -> Slm.decode(session, 1));
    Slm.prefill(session, new int[] {1, 2, 3});
    refused("logits of no session", () -> Slm.logits(0, logits));
    refused("logits into null", () -> Slm.logits(session, null));
    refused("logits into fewer", () -> Slm.logits(session, new float[vocabulary - 1]));
    refused("top of no session", () -> Slm.topK(0, one, new float[1]));
    refused("top into null", () -> Slm.topK(session, null, new float[1]));
    refused("top into two lengths", () -> Slm.topK(session, one, new float[2]));
    refused("top of none", () -> Slm.topK(session, new int[0], new float[0]));
    refused("top of too many", () -> Slm.topK(session, new int[vocabulary + 1], new float[vocabulary + 1]));
    refused("continuations of no session", () -> Slm.continuations(0, new int[][] {one}));
    refused("continuations null", () -> Slm.continuations(session, null));
    refused("continuations with null", () -> Slm.continuations(session, new int[][] {one, null}));
    refused("continuations with an empty one", () -> Slm.continuations(session, new int[][] {one, {}}));
    refused("continuations beyond the vocabulary", () -> Slm.continuations(session, new int[][] {{vocabulary}}));
    refused("position of no session", () -> Slm.position(0));
    refused("rewind no session", () -> Slm.rewind(0, 0));
    refused("rewind below 0", () -> Slm.rewind(session, -1));
    refused("rewind beyond the position", () -> Slm.rewind(session, 4));
    refused("cancel no session", () -> Slm.cancel(0));
    Slm.logits(session, logits);
    System.out.println("position " + Slm.position(session));
    Slm.freeSession(session);
    Slm.freeSession(0);
    Slm.close(model);
    Slm.close(0);
  }

  private static void refused(String name, Call call) throws Exception {
    try {
      call.run();
      System.out.println(name + "|nothing");
    } catch (RuntimeException thrown) {
      String kind = thrown.getClass().getName();
      // By its name, since this runs without the class too.
      boolean own = kind.equals("org.slmc.SlmException");
      Object status = own ? thrown.getClass().getField("status").get(thrown) : "none";
      System.out.println(name + "|" + kind + "|" + thrown.getMessage() + "|" + status);
    }
  }
}
