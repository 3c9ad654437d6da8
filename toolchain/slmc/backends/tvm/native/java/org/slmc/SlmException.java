package org.slmc;

/**
 * What a call of {@link Slm} failed of.
 *
 * <p>The library finds this class by its name, so a shrinker must keep it:
 * {@code -keep class org.slmc.SlmException { <init>(java.lang.String); }}
 */
public final class SlmException extends RuntimeException {
  private static final long serialVersionUID = 1;

  /** The {@code slm_status} of slm.h, such as 6 for a full context or 7 for a call that was cancelled. */
  public final int status;

  /** Takes what the library throws: the status, a colon, and the text. */
  public SlmException(String message) {
    super(message);
    status = Integer.parseInt(message.substring(0, message.indexOf(':')));
  }
}
