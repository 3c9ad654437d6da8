package org.pytorch.executorch;

import java.util.Arrays;
import org.slmc.Slm;

/** A decoder as slmc exports it, in whose place slmc's own library runs. */
public final class Module {
  public static final int LOAD_MODE_MMAP = 1;

  private final long model;
  private final long session;

  private Module(String path, int threads) {
    model = Slm.open(path, null);
    session = Slm.newSession(model, 0, threads);
  }

  public static Module load(String path, int loadMode, int threads) {
    return new Module(path, threads);
  }

  public EValue[] forward(EValue... inputs) {
    Tensor tokens = inputs[0].toTensor();
    Tensor position = inputs[1].toTensor();
    if (!Arrays.equals(tokens.shape, new long[] {1, tokens.longs.length})
        || !Arrays.equals(position.shape, new long[] {1})) {
      throw new IllegalArgumentException("inputs of other shapes than forward takes");
    }
    Slm.rewind(session, (int) position.longs[0]);
    Slm.prefill(session, Arrays.stream(tokens.longs).mapToInt(token -> (int) token).toArray());
    float[] logits = new float[Slm.vocabSize(model)];
    Slm.logits(session, logits);
    return new EValue[] {EValue.from(Tensor.fromBlob(logits, new long[] {1, logits.length}))};
  }

  public void destroy() {
    Slm.freeSession(session);
    Slm.close(model);
  }
}
