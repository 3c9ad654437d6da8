package org.slmc

/** What a text was found to be. */
data class Decision(
    /** Null where it abstains: do then what the app does without a model. */
    val label: String?,
    /** Of the likeliest label among all; 0 where the model was not asked. */
    val probability: Float,
    /** The likeliest label's place in [Classifier.labels], also where it abstains; -1 where the model was not asked. */
    val choice: Int,
    val timings: Timings,
) {
    /** The probability is below the bundle's threshold, or the bundle failed its check on this phone. */
    val abstained: Boolean get() = label == null
}

/** Where an answer's time went. */
data class Timings(
    /** With answers in text by slmc's own library this is part of [prefillMs]. */
    val encodeMs: Double = 0.0,
    val prefillMs: Double = 0.0,
    val decodeMs: Double = 0.0,
    /**
     * Of the prompt and what all labels begin with, those tokens that were not in memory from the last time; with
     * answers in text by slmc's own library all of the prompt's.
     */
    val prefillTokens: Int = 0,
    val decodeTokens: Int = 0,
    /** Calls of the model after the first. */
    val decodeSteps: Int = 0,
)
