package org.slmc

import java.io.Closeable
import java.io.File
import java.io.IOException

/**
 * A result by slmc's runner contract: JSON lines, written beside the place where they belong and moved there with the
 * last one, so that a file without it is known to be cut off.
 */
internal class ResultFile(private val path: File) : Closeable {
    private val part = File(path.path + ".partial")
    private val lines = part.bufferedWriter()

    fun line(content: Map<String, Any?>) {
        lines.write(json(content))
        lines.write("\n")
        lines.flush() // what was answered before a crash is counted
    }

    fun finish(content: Map<String, Any?>) {
        line(content)
        lines.close()
        if (!part.renameTo(path)) throw IOException("$part can't be renamed to $path")
    }

    override fun close() = lines.close()
}

internal fun json(value: Any?): String = when (value) {
    null -> "null"
    is String -> quoted(value)
    is Map<*, *> -> value.entries.joinToString(",", "{", "}") { "${quoted(it.key.toString())}:${json(it.value)}" }
    is Iterable<*> -> value.joinToString(",", "[", "]") { json(it) }
    is Number -> value.also { require(it.toDouble().isFinite()) { "$it is no number in JSON" } }.toString()
    else -> value.toString()
}

private fun quoted(text: String): String =
    text.map { if (it < ' ' || it == '"' || it == '\\' || it.isSurrogate()) "\\u%04x".format(it.code) else "$it" }
        .joinToString("", "\"", "\"")
