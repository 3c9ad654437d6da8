import java.net.URLDecoder;
import java.util.Arrays;
import org.slmc.Slm;

/**
 * Calls every method of Slm as its arguments tell: FILE KERNELS THREADS OPERATION..., the file as in a URL. Prints the
 * values of each operation, floats in Java's hexadecimal.
 */
final class Answers {
  public static void main(String[] arguments) throws Exception {
    long model = Slm.open(URLDecoder.decode(arguments[0], "UTF-8"), arguments[1]);
    long session = Slm.newSession(model, 0, Integer.parseInt(arguments[2]));
    System.out.println(Slm.version() + " " + Slm.vocabSize(model) + " " + Slm.context(model) + " " + Slm.kernels(model));
    for (String operation : Arrays.copyOfRange(arguments, 3, arguments.length)) {
      int colon = operation.indexOf(':');
      System.out.println(run(model, session, operation.substring(0, colon), operation.substring(colon + 1)));
    }
    Slm.freeSession(session);
    Slm.close(model);
  }

  private static String run(long model, long session, String operation, String value) {
    switch (operation) {
      case "prefill":
        Slm.prefill(session, ids(value));
        return logits(model, session);
      case "decode":
        Slm.decode(session, Integer.parseInt(value));
        return logits(model, session);
      case "rewind":
        Slm.rewind(session, Integer.parseInt(value));
        return Integer.toString(Slm.position(session));
      case "top":
        int[] ids = new int[Integer.parseInt(value)];
        float[] logprobs = new float[ids.length];
        Slm.topK(session, ids, logprobs);
        return joined(ids) + " " + hexadecimal(logprobs);
      case "continuations":
        String[] rows = value.split(";");
        int[][] continuations = new int[rows.length][];
        for (int i = 0; i < rows.length; i++) {
          continuations[i] = ids(rows[i]);
        }
        return hexadecimal(Slm.continuations(session, continuations));
      default:
        throw new IllegalArgumentException(operation);
    }
  }

  private static int[] ids(String value) {
    return Arrays.stream(value.split(",")).mapToInt(Integer::parseInt).toArray();
  }

  private static String logits(long model, long session) {
    float[] logits = new float[Slm.vocabSize(model)];
    Slm.logits(session, logits);
    return hexadecimal(logits);
  }

  private static String joined(int[] values) {
    StringBuilder text = new StringBuilder();
    for (int value : values) {
      text.append(text.length() == 0 ? "" : " ").append(value);
    }
    return text.toString();
  }

  private static String hexadecimal(float[] values) {
    StringBuilder text = new StringBuilder();
    for (float value : values) {
      text.append(text.length() == 0 ? "" : " ").append(Float.toHexString(value));
    }
    return text.toString();
  }
}
