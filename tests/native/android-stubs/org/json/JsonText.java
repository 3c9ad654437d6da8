package org.json;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Reads what Python writes. */
final class JsonText {
  private final String text;
  private int at;

  JsonText(String text) {
    this.text = text;
  }

  Object whole() throws JSONException {
    Object value = value();
    if (next() != 0) {
      throw wrong();
    }
    return value;
  }

  private Object value() throws JSONException {
    switch (next()) {
      case '{':
        return new JSONObject(members());
      case '[':
        return new JSONArray(elements());
      case '"':
        return string();
      default:
        return word();
    }
  }

  private Map<String, Object> members() throws JSONException {
    Map<String, Object> members = new LinkedHashMap<>();
    for (at++; !taken('}'); taken(',')) {
      next();
      String key = string();
      if (!taken(':')) {
        throw wrong();
      }
      members.put(key, value());
    }
    return members;
  }

  private List<Object> elements() throws JSONException {
    List<Object> elements = new ArrayList<>();
    for (at++; !taken(']'); taken(',')) {
      elements.add(value());
    }
    return elements;
  }

  private String string() throws JSONException {
    StringBuilder made = new StringBuilder();
    for (at++; at < text.length() && text.charAt(at) != '"'; at++) {
      made.append(text.charAt(at) == '\\' ? escaped() : text.charAt(at));
    }
    if (at++ >= text.length()) {
      throw wrong();
    }
    return made.toString();
  }

  private char escaped() {
    char kind = text.charAt(++at);
    if (kind == 'u') {
      at += 4;
      return (char) Integer.parseInt(text.substring(at - 3, at + 1), 16);
    }
    int known = "bfnrt".indexOf(kind);
    return known < 0 ? kind : "\b\f\n\r\t".charAt(known);
  }

  private Object word() throws JSONException {
    int begin = at;
    while (at < text.length() && ("+-.".indexOf(text.charAt(at)) >= 0 || alphanumeric())) {
      at++;
    }
    String word = text.substring(begin, at);
    switch (word) {
      case "null":
        return JSONObject.NULL;
      case "true":
        return true;
      case "false":
        return false;
      default:
        return number(word);
    }
  }

  private boolean alphanumeric() {
    return Character.isLetterOrDigit(text.charAt(at));
  }

  private Number number(String word) throws JSONException {
    try {
      return word.matches("-?\\d+") ? (Number) Long.valueOf(word) : (Number) Double.valueOf(word);
    } catch (NumberFormatException invalid) {
      throw wrong();
    }
  }

  /** The next character that is no space, 0 at the end. */
  private char next() {
    while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
      at++;
    }
    return at < text.length() ? text.charAt(at) : 0;
  }

  private boolean taken(char wanted) throws JSONException {
    char found = next();
    if (found == 0) {
      throw wrong();
    }
    if (found == wanted) {
      at++;
    }
    return found == wanted;
  }

  private JSONException wrong() {
    return new JSONException("Not JSON at character " + at);
  }
}
