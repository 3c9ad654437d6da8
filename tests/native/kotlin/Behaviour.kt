package org.slmc

import android.os.Build
import java.io.File
import kotlin.random.Random
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch

internal val behaviour: Map<String, suspend (App) -> Unit> = mapOf(
    "files are copied once" to { app ->
        app.open().close()
        File(app.assets, MODEL).delete()
        app.open().use { same(it.classify(TEXT).label, LABEL) }
    },
    "a damaged file is refused" to { app ->
        app.spoil(File(app.assets, MODEL))
        thrown<DamagedBundleException> { app.open() }
        same(app.installed().map { it.name }, listOf("part"))
    },
    "a file that the manifest leaves out is refused" to { app ->
        app.edit("manifest.json", "\"task.slm\"", "\"other.slm\"")
        thrown<DamagedBundleException> { app.open() }
    },
    "a manifest that is none is refused" to { app ->
        for (text in listOf("", "{", "[]", "{}", "{\"name\": 1}")) {
            File(app.assets, "manifest.json").writeText(text)
            thrown<DamagedBundleException> { app.open() }
        }
    },
    "a name that leaves the folder is refused" to { app ->
        app.edit("manifest.json", "\"name\": \"intent-router\"", "\"name\": \"../databases\"")
        thrown<DamagedBundleException> { app.open() }
    },
    "a copy that was cut off is made again" to { app ->
        app.open().close()
        File(app.installed().single(), MODEL).writeText("")
        app.open().use { same(it.classify(TEXT).label, LABEL) }
    },
    "a prefix that is no use is refused, and told of" to { app ->
        app.exchange("prefix.slm")
        app.open().use {
            check(it.refusedPrefix!!.startsWith("3: "))
            same(it.classify(TEXT).label, LABEL)
        }
    },
    "a task that is no use is refused" to { app ->
        app.exchange("task.slm")
        same(thrown<SlmException> { app.open() }.status, 3)
    },
    "fast cores are those that are faster than the slowest" to { app ->
        val cores = Runtime.getRuntime().availableProcessors()
        val folder = app.context.filesDir
        same(fastCores(folder), maxOf(1, cores / 2))
        for (core in 0 until cores) {
            val speed = File(folder, "cpu$core/cpufreq/cpuinfo_max_freq")
            speed.parentFile.mkdirs()
            speed.writeText(if (core == 0) "1800000\n" else "2${core}00000\n")
        }
        same(fastCores(folder), maxOf(1, cores - 1))
    },
    "an update takes the place of what was before" to { app ->
        app.open().use { old ->
            val before = app.installed().single()
            app.edit("manifest.json", "\"version\": \"", "\"version\": \"1")
            app.open().close()
            check(app.installed().single() != before)
            same(old.classify(TEXT).label, LABEL)
        }
    },
    "a bundle from elsewhere is opened" to { app ->
        val folder = File(app.context.filesDir, "download")
        app.assets.renameTo(folder)
        app.open(folder).use { same(it.classify(TEXT).label, LABEL) }
    },
    "the check is made once, and again after an update of the system" to { app ->
        app.open().close()
        same(app.checked()[1], "1")
        File(app.installed().single(), "checked").let { it.writeText(it.readText() + "remembered") }
        app.open().use { same(it.failedCheck, "remembered") }
        Build.FINGERPRINT += "+"
        app.open().use { same(it.failedCheck, null) }
        check(app.checked()[0].startsWith(Build.FINGERPRINT))
    },
    "a check that never ends is given up" to { app ->
        app.open().close()
        val checked = File(app.installed().single(), "checked")
        checked.writeText("${app.checked()[0]}\n2\npending")
        app.open().use { same(it.failedCheck, null) }
        checked.writeText("${app.checked()[0]}\n3\npending")
        app.open().use { check("3 times" in it.failedCheck!!) }
    },
    "a failed check throws or abstains, as asked" to { app ->
        File(app.assets, "task-of-another-model.slm").renameTo(File(app.assets, "task.slm"))
        File(app.assets, "manifest-of-another-model.json").renameTo(File(app.assets, "manifest.json"))
        thrown<FailedCheckException> { app.open(onFailedCheck = OnFailedCheck.THROW) }
        app.open().use {
            check("item second" in it.failedCheck!!) { "${it.failedCheck}" }
            same(it.classify(TEXT), Decision(null, 0f, -1, Timings()))
            check(it.classify(TEXT).abstained)
        }
    },
    "below the threshold it abstains" to { app ->
        app.edit("manifest.json", "\"confidence\": null", "\"confidence\": {\"abstain\": {\"threshold\": 0.5}}")
        app.open().use { same(it.classify(TEXT).label, LABEL) }
        app.edit("manifest.json", "0.5}", "null}")
        app.open().use {
            val decision = it.classify(TEXT)
            check(decision.abstained && decision.label == null && decision.probability > 0.5f)
            same(it.labels[decision.choice], LABEL)
        }
    },
    "a bundle with labels is not for a generator" to { app ->
        check("Classifier" in thrown<IllegalArgumentException> { Generator.open(app.context) }.message!!)
        app.open().use { same(it.classify(TEXT).label, LABEL) }
    },
    "fields that can't be meant so are refused" to { app ->
        app.open().use {
            same(it.fields, listOf("text"))
            thrown<IllegalArgumentException> { it.classify(emptyMap()) }
            thrown<IllegalArgumentException> { it.classify(mapOf("text" to TEXT, "other" to "")) }
            thrown<IllegalArgumentException> { it.classify("half a letter \ud83d") }
            same(thrown<SlmException> { it.classify(TEXT.repeat(10_000)) }.status, 6)
            for (text in listOf("", " ", "\u0000", "\ud83d\ude00", "\n".repeat(50))) it.classify(text)
            same(it.classify(TEXT).label, LABEL)
        }
    },
    "closed twice it is closed" to { app ->
        val classifier = app.open()
        same(classifier.classify(TEXT).label, LABEL)
        classifier.close()
        classifier.close()
        thrown<IllegalStateException> { classifier.classify(TEXT) }
    },
    "many ask at once" to { app ->
        app.open().use { classifier ->
            val alone = classifier.classify(TEXT)
            val answers = coroutineScope {
                List(50) { async(Dispatchers.Default) { classifier.classify(TEXT) } }.awaitAll()
            }
            for (answer in answers) same(answer.copy(timings = alone.timings), alone)
        }
    },
    "who is cancelled leaves the others alone" to { app ->
        app.open().use { classifier ->
            val alone = classifier.classify(TEXT)
            val random = Random(1)
            var cancelled = 0
            repeat(100) {
                coroutineScope {
                    val asked = launch(Dispatchers.Default) { classifier.classify(WORDS) }
                    delay(random.nextLong(4))
                    asked.cancelAndJoin()
                    if (asked.isCancelled) cancelled++
                    same(classifier.classify(TEXT).copy(timings = alone.timings), alone)
                }
            }
            check(cancelled > 10) { "only $cancelled were cancelled" }
        }
    },
    "closing meanwhile harms nobody" to { app ->
        repeat(10) { round ->
            coroutineScope {
                val classifier = app.open()
                val asked = List(4) {
                    async(Dispatchers.Default) { runCatching { classifier.classify(WORDS) }.exceptionOrNull() }
                }
                delay(round % 5L)
                classifier.close()
                asked[0].cancel()
                for (failure in asked.drop(1).awaitAll()) check(failure is IllegalStateException?) { "$failure" }
            }
        }
    },
)

private const val MODEL = "model/model.slm"

/** A text of which the model is sure, and its label. */
private val TEXT = System.getProperty("text")
private val LABEL = System.getProperty("label")
private val WORDS = List(60) { "word$it" }.joinToString(" ")
