package org.slmc

import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import java.security.MessageDigest

/** What of a bundle's `manifest.json` is needed here. */
internal class Manifest(
    /** SHA-256 of the file: another one names another bundle. */
    val digest: String,
    val name: String,
    val files: Map<String, FileEntry>,
    /** Decisions of a lower probability abstain. */
    val abstainBelow: Float,
    val precision: String,
)

internal class FileEntry(val bytes: Long, val sha256: String)

/** A file is not the one that the manifest names. */
class DamagedBundleException(message: String) : IOException(message)

/**
 * Keeps a bundle's files where they can be mapped. They come from the app's package or from a download, and are copied
 * once: into a folder that gets its name, the digest, when all in it is whole and written to disk.
 */
internal class Installation(private val root: File) {
    /** Where the files lie, those of [optional] only if the bundle has them. Removes copies of other bundles. */
    fun install(
        manifest: Manifest,
        required: List<String>,
        optional: List<String>,
        open: (String) -> InputStream,
    ): File = alone {
        val wanted = (required + optional.filter { it in manifest.files }).associateWith {
            manifest.files[it] ?: throw DamagedBundleException("the manifest names no file $it")
        }
        val place = File(root, manifest.digest)
        if (wanted.any { (name, entry) -> File(place, name).length() != entry.bytes }) copy(wanted, open, place)
        // What an older model has mapped stays readable to it.
        root.listFiles()?.filter { it != place && it.name != LOCK }?.forEach { it.deleteRecursively() }
        place
    }

    private fun copy(wanted: Map<String, FileEntry>, open: (String) -> InputStream, place: File) {
        val part = File(root, "part")
        part.deleteRecursively()
        place.deleteRecursively()
        for ((name, entry) in wanted) copy(open(name), entry, File(part, name))
        if (!part.renameTo(place)) throw IOException("$part can't be renamed to $place")
    }

    private fun copy(from: InputStream, entry: FileEntry, to: File) {
        to.parentFile?.mkdirs()
        val digest = MessageDigest.getInstance("SHA-256")
        var bytes = 0L
        from.use {
            FileOutputStream(to).use { out ->
                val buffer = ByteArray(BUFFER)
                while (true) {
                    val count = from.read(buffer)
                    if (count < 0) break
                    digest.update(buffer, 0, count)
                    out.write(buffer, 0, count)
                    bytes += count
                }
                out.fd.sync()
            }
        }
        if (bytes != entry.bytes || digest.hex() != entry.sha256) {
            throw DamagedBundleException("${to.name} is not the file that the manifest names: $bytes bytes")
        }
    }

    /** Keeps out other threads, and other processes of the app. */
    private fun <T> alone(work: () -> T): T = synchronized(Installation::class.java) {
        root.mkdirs()
        RandomAccessFile(File(root, LOCK), "rw").use { file -> file.channel.lock().use { work() } }
    }

    private companion object {
        const val LOCK = "lock"
        const val BUFFER = 1 shl 16
    }
}

internal fun MessageDigest.hex(): String = digest().joinToString("") { "%02x".format(it) }
