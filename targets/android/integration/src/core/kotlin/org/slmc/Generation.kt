package org.slmc

/** An answer in text. */
data class Generation(
    /** Null where it abstains: do then what the app does without a model. */
    val text: String?,
    /** What ended it; null where it abstains. */
    val done: Done?,
    /** Ids, without the end token; those of a stop string are among them. */
    val tokens: List<Int>,
    /** Of each token, and of the end token where it came: among all tokens, as the model says it. */
    val logprobs: List<Double>,
    val timings: Timings,
) {
    /** The bundle failed its check on this phone. */
    val abstained: Boolean get() = text == null
}

/** What ended an answer. */
enum class Done {
    /** The model: the answer is whole. */
    ENDED,

    /** A stop string. */
    STOPPED,

    /** There was no room for more, by [Sampling.maxTokens] or the model's context: it is cut off wherever that was. */
    LENGTH,
}

internal fun done(piece: SlmPiece): Done = when (piece.done) {
    SlmPiece.ENDED -> Done.ENDED
    SlmPiece.STOPPED -> Done.STOPPED
    else -> Done.LENGTH
}
