package org.slmc

import java.security.MessageDigest
import org.json.JSONException
import org.json.JSONObject

/** Throws [DamagedBundleException] for what is no manifest. */
internal fun readManifest(bytes: ByteArray): Manifest =
    try {
        manifest(JSONObject(bytes.decodeToString()), bytes)
    } catch (invalid: JSONException) {
        throw DamagedBundleException("manifest.json can't be read: ${invalid.message}")
    }

private fun manifest(json: JSONObject, bytes: ByteArray): Manifest {
    val name = json.getString("name")
    // It names a folder.
    if (!name.matches(Regex("[A-Za-z0-9][A-Za-z0-9._-]*"))) throw DamagedBundleException("a bundle of the name $name")
    val files = json.getJSONObject("files")
    return Manifest(
        digest = MessageDigest.getInstance("SHA-256").apply { update(bytes) }.hex(),
        name = name,
        files = files.keys().asSequence().associateWith { entry(files.getJSONObject(it)) },
        abstainBelow = abstainBelow(json.optJSONObject("confidence")?.optJSONObject("abstain")),
        precision = json.getJSONObject("quantization").getString("scheme"),
    )
}

private fun entry(json: JSONObject) = FileEntry(json.getLong("bytes"), json.getString("sha256"))

/** A threshold of null says that none was found that keeps the recipe's promise: always abstain. */
private fun abstainBelow(abstain: JSONObject?): Float = when {
    abstain == null -> 0f
    abstain.isNull("threshold") -> Float.POSITIVE_INFINITY
    else -> abstain.getDouble("threshold").toFloat()
}
