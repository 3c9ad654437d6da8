package org.slmc

import java.io.Closeable

/** What answers: a model with a task. For one thread at a time, [cancel] apart. */
internal interface Engine : Closeable {
    /** Names it in results: runtime and version. */
    val runtime: String
    val version: String
    val threads: Int

    val fields: List<String>

    /** Empty where the task is answered in text. */
    val labels: List<String>

    /** Why the prompt's beginning is read anew, though the bundle brings it; null where it isn't. */
    val refusedPrefix: String?

    /** The likeliest label for fields in UTF-8, in the order of [fields]. */
    fun answer(texts: Array<ByteArray>): Answer

    /** An answer in text to such fields; [each] is given one piece of it after another, some of them empty. */
    fun write(texts: Array<ByteArray>, sampling: SlmSampling, each: (String) -> Unit): Written

    fun selfCheck(): SlmCheck

    /** From any thread: the call that is running, or else the next one, throws with status [CANCELLED]. */
    fun cancel()
}

internal class Answer(
    val choice: Int,
    val probability: Float,
    val unexplored: Float,
    val timings: Timings,
    /** The prompt's, and with some engines of what all labels begin with. */
    val promptIds: IntArray,
    /** Of each label that was come to, by its place. */
    val logprobs: Map<Int, Double>,
)

internal class Written(
    val done: Done,
    /** Without the end token. */
    val ids: IntArray,
    /** Of each id, and of the end token where it came. */
    val logprobs: DoubleArray,
    val promptIds: IntArray,
    val timings: Timings,
)

/** `SLM_CANCELLED` of slm_text.h. */
internal const val CANCELLED = 7

/** Runs what makes a value from something that must be closed where that fails. */
internal inline fun <T : Closeable, R> T.orClose(make: (T) -> R): R =
    try {
        make(this)
    } catch (failure: Throwable) {
        close()
        throw failure
    }
