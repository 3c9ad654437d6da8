package android.os;

public class Build {
  /** Not final as on a phone, so that a test can update the system. */
  public static String FINGERPRINT = "stub/one:14/1:user/release-keys";

  public static final String MANUFACTURER = "Stub";
  public static final String MODEL = "One";

  public static class VERSION {
    public static final String RELEASE = "14";
    public static final int SDK_INT = Integer.parseInt("34"); // no constant, by which code would be left out
  }

  public static class VERSION_CODES {
    public static final int Q = 29;
  }
}
