package android.os;

import java.util.Properties;

public class Bundle {
  private final Properties values;

  public Bundle(Properties values) {
    this.values = values;
  }

  public String getString(String key) {
    return values.getProperty(key);
  }
}
