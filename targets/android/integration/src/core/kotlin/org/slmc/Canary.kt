package org.slmc

import java.io.File

/** What to do where the model answers otherwise on this phone than where it was built. */
enum class OnFailedCheck {
    /** Opening it throws [FailedCheckException]. */
    THROW,

    /** Every answer abstains, and [Classifier.failedCheck] or [Generator.failedCheck] tells why. */
    ABSTAIN,
}

class FailedCheckException(reason: String) : Exception(reason)

/**
 * The bundle's own items, decided on this phone and compared with what they were where it was built. Once for each
 * bundle, system and library, and so again after every update; [file], which lies beside the bundle's files, remembers.
 */
internal class Canary(private val file: File, private val system: String) {
    /** What was otherwise, or null. */
    fun failure(check: () -> SlmCheck): String? {
        val (tries, reason) = recall()
        if (reason != PENDING) return reason.ifEmpty { null }
        // A kernel that crashes takes the process with it, and would do so at every start.
        if (tries >= TRIES) return "the check was begun $tries times, and the process ended each time"
        remember(tries + 1, PENDING)
        val found = check().text
        remember(tries + 1, found)
        return found.ifEmpty { null }
    }

    private fun recall(): Pair<Int, String> {
        val lines = if (file.isFile) file.readText().split("\n", limit = 3) else emptyList()
        val tries = lines.getOrNull(1)?.toIntOrNull()
        return if (lines.firstOrNull() == system && tries != null) tries to lines[2] else 0 to PENDING
    }

    private fun remember(tries: Int, reason: String) {
        val part = File(file.path + ".part")
        part.writeText("$system\n$tries\n$reason")
        part.renameTo(file)
    }

    private companion object {
        const val PENDING = "pending"
        const val TRIES = 3
    }
}
