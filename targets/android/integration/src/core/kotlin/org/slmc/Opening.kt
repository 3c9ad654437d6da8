package org.slmc

import java.io.File

/** A classifier of installed files. [system] names what the check's outcome holds for. */
internal fun openInstalled(
    manifest: Manifest,
    folder: File,
    system: String,
    threads: Int,
    onFailedCheck: OnFailedCheck,
): Classifier = openEngine(folder, threads).orClose { engine ->
    val failure = Canary(File(folder, "checked"), "$system ${engine.version}").failure(engine::selfCheck)
    if (failure != null && onFailedCheck == OnFailedCheck.THROW) throw FailedCheckException(failure)
    Classifier(engine, manifest.abstainBelow, failure)
}
