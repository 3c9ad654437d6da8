package androidx.test.platform.app;

import android.app.Instrumentation;
import android.os.Bundle;

/** The JVM's properties are the arguments. */
public final class InstrumentationRegistry {
  public static Instrumentation getInstrumentation() {
    return new Instrumentation();
  }

  public static Bundle getArguments() {
    return new Bundle(System.getProperties());
  }
}
