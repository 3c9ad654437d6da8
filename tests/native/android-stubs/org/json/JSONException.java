package org.json;

/** Unchecked for Kotlin in any case. */
public class JSONException extends Exception {
  private static final long serialVersionUID = 1;

  public JSONException(String message) {
    super(message);
  }
}
