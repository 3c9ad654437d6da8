package org.slmc

import java.io.File
import kotlin.math.ln
import org.json.JSONObject

internal val REQUIRED_FILES = listOf("task.slm", "model/model.pte", "model/model.json")
internal val OPTIONAL_FILES = emptyList<String>()

internal fun openEngine(folder: File, threads: Int): Engine = ProgramEngine(folder, threads)

/** ExecuTorch runs the model; the native library has the tokenizer, the prompt, the search and the grammar. */
internal class ProgramEngine(folder: File, override val threads: Int) : Engine {
    private val facts = JSONObject(File(folder, "model/model.json").readText())
    override val runtime = "executorch"
    override val version = facts.getJSONObject("versions").getString("executorch")
    override val fields: List<String>
    override val labels: List<String>
    override val refusedPrefix: String? = null

    private var task = 0L
    private var chooser = 0L // of a task with labels
    private var writer = 0L // of one without
    private val program: Program

    @Volatile
    private var cancelled = false

    init {
        if (!facts.isNull("foundation_sha256")) {
            throw DamagedBundleException("ExecuTorch for Android opens no program whose weights are in another file")
        }
        program = Program(File(folder, "model/model.pte"), threads, facts)
        orClose {
            task = SlmText.openTask(File(folder, "task.slm").path)
            if (SlmText.labels(task).isEmpty()) writer = SlmText.newWriter(task) else chooser = SlmText.newChooser(task)
        }
        fields = SlmText.fields(task).asList()
        labels = SlmText.labels(task).asList()
    }

    override fun answer(texts: Array<ByteArray>): Answer {
        val begun = System.nanoTime()
        val ids = SlmText.begin(chooser, texts)
        val encoded = System.nanoTime()
        val (logits, read) = read(ids)
        val prefilled = System.nanoTime()
        val (tokens, steps) = search(ids.size, logits)
        val times = listOf(encoded - begun, prefilled - encoded, System.nanoTime() - prefilled).map { it / 1e6 }
        val found = SlmText.decision(chooser)
        val logprobs = mapOf(found.choice to ln(found.probability.toDouble()))
        val timings = Timings(times[0], times[1], times[2], read, tokens, steps)
        return Answer(found.choice, found.probability, found.unexplored, timings, ids, logprobs)
    }

    override fun write(texts: Array<ByteArray>, sampling: SlmSampling, each: (String) -> Unit): Written {
        val begun = System.nanoTime()
        val ids = SlmText.beginAnswer(writer, texts, sampling, program.context)
        val encoded = System.nanoTime()
        val (logits, read) = read(ids)
        val prefilled = System.nanoTime()
        val (done, steps) = writeAll(logits, each)
        val times = listOf(encoded - begun, prefilled - encoded, System.nanoTime() - prefilled).map { it / 1e6 }
        val timings = Timings(times[0], times[1], times[2], read, steps, steps)
        return Written(done, SlmText.answerIds(writer), SlmText.answerLogprobs(writer), ids, timings)
    }

    /** The prompts alone: delegates' numbers differ by CPU and driver, so there are none to hold them against. */
    override fun selfCheck(): SlmCheck = SlmText.checkPrompts(task)

    /** Between calls of the program, none of which can be stopped. */
    override fun cancel() {
        cancelled = true
    }

    override fun close() {
        SlmText.freeChooser(chooser)
        SlmText.freeWriter(writer)
        SlmText.closeTask(task)
        program.close()
    }

    /** Logits after a prompt of which the program has read the beginning before, and how many tokens were new to it. */
    private fun read(ids: IntArray): Pair<FloatArray, Int> {
        val known = minOf(shared(program.held, ids), ids.size - 1) // what comes after the last is asked for
        program.rewind(known)
        return step(ids.copyOfRange(known, ids.size)) to ids.size - known
    }

    /** Looks at labels until the likeliest is known: how many of their tokens were read, in how many steps. */
    private fun search(begin: Int, first: FloatArray): Pair<Int, Int> {
        var logits = first
        var held = IntArray(0)
        var tokens = 0
        var steps = 0
        while (true) {
            val path = SlmText.give(chooser, logits)
            if (path.isEmpty()) return tokens to steps
            // Back to where the wanted path leaves the last one, and on from there.
            val shared = shared(held, path)
            program.rewind(begin + shared)
            logits = step(path.copyOfRange(shared, path.size))
            tokens += path.size - shared
            steps++
            held = path
        }
    }

    /** Writes tokens until the answer is done: what ended it, and how many of them were read. */
    private fun writeAll(first: FloatArray, each: (String) -> Unit): Pair<Done, Int> {
        var logits = first
        var steps = 0
        while (true) {
            val piece = SlmText.write(writer, logits)
            each(piece.text.decodeToString())
            if (piece.done != SlmPiece.MORE) return done(piece) to steps
            logits = step(intArrayOf(piece.id))
            steps++
        }
    }

    private fun step(ids: IntArray): FloatArray = program.read(ids) {
        if (cancelled) {
            cancelled = false
            throw SlmException("$CANCELLED: cancelled")
        }
    }
}

private fun shared(one: IntArray, other: IntArray): Int =
    (0 until minOf(one.size, other.size)).firstOrNull { one[it] != other[it] } ?: minOf(one.size, other.size)
