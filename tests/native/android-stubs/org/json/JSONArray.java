package org.json;

import java.util.List;

public class JSONArray {
  private final List<Object> values;

  JSONArray(List<Object> values) {
    this.values = values;
  }

  public int length() {
    return values.size();
  }

  public JSONArray getJSONArray(int index) throws JSONException {
    return JSONObject.as(JSONArray.class, get(index), index);
  }

  public int getInt(int index) throws JSONException {
    return JSONObject.as(Number.class, get(index), index).intValue();
  }

  public String getString(int index) throws JSONException {
    return JSONObject.as(String.class, get(index), index);
  }

  private Object get(int index) throws JSONException {
    if (index < 0 || index >= values.size()) {
      throw new JSONException("Index " + index + " out of range");
    }
    return values.get(index);
  }
}
