package org.slmc

/** How an answer's tokens are taken: as it is, the likeliest each time, to the end. */
data class Sampling(
    /** What logits are divided by; at 0 the likeliest token is taken, and [topP], [topK] and [seed] have no effect. */
    val temperature: Float = 0f,
    /** Only of the likeliest tokens that have this share of the probability between them. */
    val topP: Float = 1f,
    /** Only of so many of the likeliest tokens; 0: of all. */
    val topK: Int = 0,
    /** 0: as many as there is room for. */
    val maxTokens: Int = 0,
    /** The same one gives the same answer, on every phone where the model tells the same numbers. */
    val seed: Long = 0,
    /** Texts that end the answer where the first of them is whole; they are left out of it. */
    val stops: List<String> = emptyList(),
)

internal fun Sampling.native(): SlmSampling {
    val endings = Array(stops.size) { utf8("stop string $it", stops[it]) }
    return SlmSampling(temperature, topP, topK, maxTokens, seed, endings)
}
