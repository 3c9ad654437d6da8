package org.json;

import java.util.Iterator;
import java.util.Map;

/** As on a phone, but for values of another kind, which it would rather convert than refuse. */
public class JSONObject {
  /** Stands for null, which is a value too. */
  public static final Object NULL = new Object();

  private final Map<String, Object> values;

  public JSONObject(String text) throws JSONException {
    this(as(JSONObject.class, new JsonText(text).whole(), "the text").values);
  }

  JSONObject(Map<String, Object> values) {
    this.values = values;
  }

  public Iterator<String> keys() {
    return values.keySet().iterator();
  }

  public boolean isNull(String key) {
    return values.getOrDefault(key, NULL) == NULL;
  }

  public String getString(String key) throws JSONException {
    return as(String.class, values.get(key), key);
  }

  public boolean getBoolean(String key) throws JSONException {
    return as(Boolean.class, values.get(key), key);
  }

  public int getInt(String key) throws JSONException {
    return as(Number.class, values.get(key), key).intValue();
  }

  public long getLong(String key) throws JSONException {
    return as(Number.class, values.get(key), key).longValue();
  }

  public double getDouble(String key) throws JSONException {
    return as(Number.class, values.get(key), key).doubleValue();
  }

  public JSONObject getJSONObject(String key) throws JSONException {
    return as(JSONObject.class, values.get(key), key);
  }

  public JSONArray getJSONArray(String key) throws JSONException {
    return as(JSONArray.class, values.get(key), key);
  }

  public int optInt(String key) {
    return values.get(key) instanceof Number ? ((Number) values.get(key)).intValue() : 0;
  }

  public JSONObject optJSONObject(String key) {
    return values.get(key) instanceof JSONObject ? (JSONObject) values.get(key) : null;
  }

  static <T> T as(Class<T> kind, Object value, Object key) throws JSONException {
    if (!kind.isInstance(value)) {
      throw new JSONException("No " + kind.getSimpleName() + " for " + key);
    }
    return kind.cast(value);
  }
}
