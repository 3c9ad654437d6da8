package org.pytorch.executorch;

/** Of one of both kinds. */
public final class Tensor {
  final long[] longs;
  final long[] shape;
  private final float[] floats;

  private Tensor(long[] longs, float[] floats, long[] shape) {
    this.longs = longs;
    this.floats = floats;
    this.shape = shape;
  }

  public static Tensor fromBlob(long[] data, long[] shape) {
    return new Tensor(data, null, shape);
  }

  public static Tensor fromBlob(float[] data, long[] shape) {
    return new Tensor(null, data, shape);
  }

  public float[] getDataAsFloatArray() {
    return floats;
  }
}
