package org.slmc

import android.content.Context
import android.os.Build
import java.io.Closeable
import java.io.File
import java.io.IOException
import java.io.InputStream
import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

/**
 * Opens the bundle in the app's assets, or the one in [folder] that the app has downloaded. The first time its files
 * are copied, held against the manifest's digests, and the model is checked on this phone: call it before it is needed.
 *
 * Throws [IOException] where a file can't be read or there is no room for the copy, [DamagedBundleException] where it
 * is another than the manifest's, [SlmException] where it can't be loaded, and [FailedCheckException] as
 * [onFailedCheck] says; [IllegalArgumentException] where the task has no labels: that bundle is for [Generator].
 *
 * @param threads 0 for as many as there are fast cores; slower ones hold the others up
 */
suspend fun Classifier.Companion.open(
    context: Context,
    folder: File? = null,
    threads: Int = 0,
    onFailedCheck: OnFailedCheck = OnFailedCheck.ABSTAIN,
): Classifier = openAs(context, folder, threads, onFailedCheck) { manifest, worker ->
    Classifier(worker, manifest.abstainBelow)
}

/** The same for a bundle whose answers are text; one with labels is for [Classifier]. */
suspend fun Generator.Companion.open(
    context: Context,
    folder: File? = null,
    threads: Int = 0,
    onFailedCheck: OnFailedCheck = OnFailedCheck.ABSTAIN,
): Generator = openAs(context, folder, threads, onFailedCheck) { _, worker -> Generator(worker) }

private suspend fun <T : Closeable> openAs(
    context: Context,
    folder: File?,
    threads: Int,
    onFailedCheck: OnFailedCheck,
    make: (Manifest, Worker) -> T,
): T {
    var opened: T? = null
    try {
        withContext(Dispatchers.IO) {
            val (manifest, worker) = openNow(context, folder, threads, onFailedCheck)
            opened = worker.orClose { make(manifest, it) }
        }
    } catch (cancelled: CancellationException) {
        opened?.close()
        throw cancelled
    }
    return checkNotNull(opened)
}

private fun openNow(
    context: Context,
    folder: File?,
    threads: Int,
    onFailedCheck: OnFailedCheck,
): Pair<Manifest, Worker> {
    val manifest = bundled(context, folder, "manifest.json").use { readManifest(it.readBytes()) }
    val root = File(context.noBackupFilesDir, "slm/${manifest.name}")
    val place = Installation(root).install(manifest, REQUIRED_FILES, OPTIONAL_FILES) { bundled(context, folder, it) }
    val cores = if (threads == 0) fastCores() else threads
    return manifest to openInstalled(place, Build.FINGERPRINT, cores, onFailedCheck)
}

internal fun bundled(context: Context, folder: File?, name: String): InputStream =
    if (folder == null) context.assets.open("slm/$name") else File(folder, name).inputStream()
