package org.slmc

import java.io.File
import kotlin.random.Random
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeoutOrNull

/** Of a bundle whose answers are text, long ones. */
internal val textBehaviour: Map<String, suspend (App) -> Unit> = mapOf(
    "a bundle without labels is not for a classifier" to { app ->
        check("Generator" in thrown<IllegalArgumentException> { app.open() }.message!!)
        app.generator().use { same(it.generate(ASKED, SHORT).tokens.size, SHORT.maxTokens) }
    },
    "a failed check throws or abstains, as asked" to { app ->
        File(app.assets, "task-of-another-model.slm").renameTo(File(app.assets, "task.slm"))
        File(app.assets, "manifest-of-another-model.json").renameTo(File(app.assets, "manifest.json"))
        thrown<FailedCheckException> { app.generator(OnFailedCheck.THROW) }
        app.generator().use {
            check("item second" in it.failedCheck!!) { "${it.failedCheck}" }
            same(it.generate(ASKED), Generation(null, null, emptyList(), emptyList(), Timings()))
            check(it.generate(ASKED).abstained)
            thrown<FailedCheckException> { it.stream(ASKED).toList() }
        }
    },
    "what can't be meant so is refused" to { app ->
        app.generator().use {
            same(it.fields, listOf("text"))
            for (fields in listOf(emptyMap(), mapOf("text" to ASKED, "other" to ""), mapOf("text" to "\ud83d"))) {
                thrown<IllegalArgumentException> { it.generate(fields) }
                thrown<IllegalArgumentException> { it.stream(fields).toList() }
            }
            thrown<IllegalArgumentException> { it.generate(ASKED, Sampling(stops = listOf("a", "\ude00"))) }
            for (odd in listOf(
                Sampling(temperature = -1f),
                Sampling(temperature = Float.NaN),
                Sampling(temperature = Float.POSITIVE_INFINITY),
                Sampling(topP = 1.5f),
                Sampling(topK = -1),
                Sampling(maxTokens = Int.MIN_VALUE),
                Sampling(stops = listOf("a", "")),
            )) {
                same(thrown<SlmException> { it.generate(ASKED, odd) }.status, 1)
                same(thrown<SlmException> { it.stream(ASKED, odd).toList() }.status, 1)
            }
            same(thrown<SlmException> { it.generate(ASKED.repeat(10_000)) }.status, 6)
            for (text in listOf("", " ", "\u0000", "\ud83d\ude00")) it.generate(text, SHORT)
        }
    },
    "closed twice it is closed" to { app ->
        val generator = app.generator()
        generator.generate(ASKED, SHORT)
        generator.close()
        generator.close()
        thrown<IllegalStateException> { generator.generate(ASKED) }
        thrown<IllegalStateException> { generator.stream(ASKED).toList() }
    },
    "many ask at once" to { app ->
        app.generator().use { generator ->
            val alone = List(5) { generator.generate(ASKED, LONG.copy(seed = it.toLong())) }
            check(alone.distinctBy { it.text }.size == alone.size)
            coroutineScope {
                val streamed = List(5) {
                    async(Dispatchers.Default) { generator.stream(ASKED, LONG.copy(seed = it.toLong())).toList() }
                }
                val whole = List(5) {
                    async(Dispatchers.Default) { generator.generate(ASKED, LONG.copy(seed = it.toLong())) }
                }
                same(streamed.awaitAll().map { it.joinToString("") }, alone.map { it.text })
                same(whole.awaitAll().map { it.untimed() }, alone.map { it.untimed() })
            }
        }
    },
    "who is cancelled leaves the others alone" to { app ->
        app.generator().use { generator ->
            val alone = generator.generate(ASKED, LONG).untimed()
            val random = Random(1)
            var cancelled = 0
            repeat(40) { round ->
                coroutineScope {
                    val asked = launch(Dispatchers.Default) {
                        if (round % 2 == 0) generator.generate(OTHER, LONG) else generator.stream(OTHER, LONG).toList()
                    }
                    delay(random.nextLong(8))
                    asked.cancelAndJoin()
                    if (asked.isCancelled) cancelled++
                }
                same(generator.generate(ASKED, LONG).untimed(), alone)
            }
            check(cancelled > 10) { "only $cancelled were cancelled" }
        }
    },
    "who has read enough leaves the others alone" to { app ->
        app.generator().use { generator ->
            val alone = generator.stream(ASKED, LONG).toList()
            check(alone.size > 20) { "only ${alone.size} pieces" }
            for (count in 1..20 step 3) {
                same(generator.stream(ASKED, LONG).take(count).toList(), alone.take(count))
                same(generator.stream(ASKED, LONG).toList(), alone)
            }
        }
    },
    "an answer without an end is stopped" to { _ ->
        Generator(Worker(Endless(), null)).use { generator ->
            repeat(3) {
                same(generator.stream("").take(3).toList(), List(3) { "x" })
                same(withTimeoutOrNull(20) { generator.generate("") }, null)
            }
            // The one who waits comes in when the other has enough.
            coroutineScope {
                val first = async(Dispatchers.Default) { generator.stream("").take(30).toList() }
                same(generator.stream("").first(), "x")
                same(first.await().size, 30)
            }
        }
    },
    "what a collector throws is thrown" to { app ->
        app.generator().use { generator ->
            val alone = generator.generate(ASKED, LONG).untimed()
            thrown<NoSuchElementException> { generator.stream(ASKED, LONG).collect { throw NoSuchElementException() } }
            same(generator.generate(ASKED, LONG).untimed(), alone)
        }
    },
    "closing meanwhile harms nobody" to { app ->
        repeat(10) { round ->
            coroutineScope {
                val generator = app.generator()
                val asked = List(4) {
                    async(Dispatchers.Default) { runCatching { generator.generate(ASKED, LONG) }.exceptionOrNull() }
                }
                delay(3L * (round % 5))
                generator.close()
                asked[0].cancel()
                for (failure in asked.drop(1).awaitAll()) check(failure is IllegalStateException?) { "$failure" }
            }
        }
    },
    "a workload that can't be answered so is refused" to { app ->
        app.generator().use {
            val manifest = readManifest(File(app.assets, "manifest.json").readBytes())
            suspend fun answer(item: Item, choices: Map<String, List<List<Int>>> = emptyMap()) {
                val workload = Workload("", choices, listOf(item))
                val result = File(app.context.filesDir, "result")
                answerWorkload(workload, it.worker, manifest, Device("", "", null), 0.0, result)
            }
            val fields = mapOf("text" to ASKED)
            val choices = mapOf("of" to listOf(listOf(1)))
            answer(GenerateItem("a", fields, listOf(1), 5))
            thrown<BadWorkloadException> { answer(GenerateItem("a", fields, listOf(1), 100_000)) }
            thrown<BadWorkloadException> { answer(ChooseItem("a", fields, listOf(1), "of"), choices) }
        }
        for (item in listOf(
            """"mode": "generate", "fields": null, "max_tokens": 1, "ignore_end": false""",
            """"mode": "generate", "fields": {}, "max_tokens": 1, "ignore_end": true""",
            """"mode": "score", "fields": {}, "score_ids": [1]""",
        )) {
            val file = File(app.context.filesDir, "workload")
            val header = """{"slmc_workload": 1, "digest": "", "choices": {}}"""
            file.writeText("$header\n{\"id\": \"a\", \"input_ids\": [1], $item}\n")
            thrown<BadWorkloadException> { readWorkload(file) }
        }
    },
)

private const val ASKED = "a table for 7"
private const val OTHER = "another one for 3, please"
private val SHORT = Sampling(maxTokens = 3)
private val LONG = Sampling(temperature = 1f, seed = 7)

private suspend fun App.generator(onFailedCheck: OnFailedCheck = OnFailedCheck.ABSTAIN) =
    Generator.open(context, threads = 2, onFailedCheck = onFailedCheck)

private fun Generation.untimed() = copy(timings = Timings())

/** Writes on until it is cancelled. */
private class Endless : Engine {
    override val runtime = "none"
    override val version = "none"
    override val threads = 0
    override val fields = listOf("text")
    override val labels = emptyList<String>()
    override val refusedPrefix = null

    @Volatile
    private var cancelled = false

    override fun answer(texts: Array<ByteArray>): Answer = error("there are no labels")

    override fun write(texts: Array<ByteArray>, sampling: SlmSampling, each: (String) -> Unit): Written {
        while (!cancelled) {
            each("x")
            Thread.sleep(1)
        }
        cancelled = false
        throw SlmException("$CANCELLED: cancelled")
    }

    override fun selfCheck(): SlmCheck = error("there is nothing to check")

    override fun cancel() {
        cancelled = true
    }

    override fun close() = Unit
}
