package org.slmc

import android.content.Context
import android.os.Build
import android.os.PowerManager
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import java.io.File
import kotlinx.coroutines.runBlocking
import org.junit.Test
import org.junit.runner.RunWith

/**
 * slmc's runner for a phone: answers the workload in the app's files folder, of the name that the argument `workload`
 * gives, into the one that `result` names. Without arguments there is nothing to do.
 */
@RunWith(AndroidJUnit4::class)
class WorkloadTest {
    private val context: Context = InstrumentationRegistry.getInstrumentation().targetContext

    @Test
    fun answers() {
        val workload = file("workload") ?: return
        val result = checkNotNull(file("result")) { "the argument result is missing" }
        runBlocking { answer(readWorkload(workload), result) }
    }

    private suspend fun answer(workload: Workload, result: File) {
        val begun = System.nanoTime()
        open(workload).use { worker ->
            val loadMs = (System.nanoTime() - begun) / 1e6
            val manifest = bundled(context, null, "manifest.json").use { readManifest(it.readBytes()) }
            answerWorkload(workload, worker, manifest, device(), loadMs, result)
        }
    }

    /** Throws where the workload asks for what the bundle's task is not. */
    private suspend fun open(workload: Workload): Worker = when (workload.items.map { it::class }.distinct()) {
        listOf(ChooseItem::class) -> Classifier.open(context).worker
        listOf(GenerateItem::class) -> Generator.open(context).worker
        else -> throw BadWorkloadException("items to choose and to generate in one workload, or none")
    }

    /** A path that leaves the folder is refused. */
    private fun file(argument: String): File? =
        InstrumentationRegistry.getArguments().getString(argument)?.let {
            require(it == File(it).name) { "$argument is to be a file's name, not $it" }
            File(context.filesDir, it)
        }

    private fun device() = Device(
        name = "${Build.MANUFACTURER} ${Build.MODEL}",
        system = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
        thermal = thermal(),
    )

    private fun thermal(): String? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        val status = context.getSystemService(PowerManager::class.java).currentThermalStatus
        return THERMAL.getOrNull(status)
    }

    private companion object {
        /** By the value of `PowerManager.THERMAL_STATUS_...`. */
        val THERMAL = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
