package org.slmc;

import java.nio.charset.StandardCharsets;

/** What a task found when it checked itself: {@code slm_check} of slm.h. */
public final class SlmCheck {
  /** How many items it had to check itself by. */
  public final int items;

  /** The first that came out otherwise, or -1. */
  public final int failed;

  /** What was otherwise; empty where all is well. */
  public final String text;

  /** Takes what the library tells: both numbers and the text, of which a letter may be cut off. */
  SlmCheck(byte[] told) {
    String[] parts = new String(told, StandardCharsets.UTF_8).split(" ", 3);
    items = Integer.parseInt(parts[0]);
    failed = Integer.parseInt(parts[1]);
    text = parts[2];
  }
}
