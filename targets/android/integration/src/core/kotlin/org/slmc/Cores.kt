package org.slmc

import java.io.File
import java.io.IOException

/** How many cores are faster than the slowest; half of all where the system doesn't tell, or none is. */
internal fun fastCores(folder: File = File("/sys/devices/system/cpu")): Int {
    val cores = Runtime.getRuntime().availableProcessors()
    val speeds = (0 until cores).mapNotNull { speed(File(folder, "cpu$it/cpufreq/cpuinfo_max_freq")) }
    val fast = speeds.count { it > speeds.min() }
    return if (speeds.size == cores && fast > 0) fast else maxOf(1, cores / 2)
}

private fun speed(file: File): Long? =
    try {
        file.readText().trim().toLongOrNull()
    } catch (_: IOException) {
        null
    }
