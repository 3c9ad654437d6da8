package org.slmc;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** One more token of an answer in text, and what became certain with it. */
public final class SlmPiece {
  /** The answer goes on. */
  public static final int MORE = 0;

  /** The model ended it. */
  public static final int ENDED = 1;

  /** A stop string ended it. */
  public static final int STOPPED = 2;

  /** It is cut off, by maxTokens or the context. */
  public static final int LENGTH = 3;

  /** The token; -1 where there was none, since the model ended the answer. */
  public final int id;

  /** Whole characters in UTF-8, often none. */
  public final byte[] text;

  /** One of the numbers above. */
  public final int done;

  /** Takes what the library tells: id, done and the text. */
  SlmPiece(byte[] told) {
    ByteBuffer numbers = ByteBuffer.wrap(told).order(ByteOrder.nativeOrder());
    id = numbers.getInt();
    done = numbers.getInt();
    text = new byte[numbers.remaining()];
    numbers.get(text);
  }
}
