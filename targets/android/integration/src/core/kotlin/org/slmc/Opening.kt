package org.slmc

import java.io.File

/** The engine of installed files, checked. [system] names what the check's outcome holds for. */
internal fun openInstalled(folder: File, system: String, threads: Int, onFailedCheck: OnFailedCheck): Worker =
    openEngine(folder, threads).orClose { engine ->
        val failure = Canary(File(folder, "checked"), "$system ${engine.version}").failure(engine::selfCheck)
        if (failure != null && onFailedCheck == OnFailedCheck.THROW) throw FailedCheckException(failure)
        Worker(engine, failure)
    }
