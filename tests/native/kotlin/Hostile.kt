package org.slmc

import java.io.File

/** Calls of the native methods as they can't be meant: each with the status that it throws. */
internal fun hostile(folder: File): Map<String, Int?> {
    val file = File(folder, "task.slm").path
    val task = SlmText.openTask(file)
    val model = Slm.open(File(folder, "model/model.slm").path, null)
    val decider = SlmDecider.open(model, task, 0, 0, null, 0f)
    val encoder = SlmText.newEncoder(task)
    val speller = SlmText.newSpeller(task)
    val chooser = SlmText.newChooser(task)
    val writer = SlmText.newWriter(task)
    val text = arrayOf("a".encodeToByteArray())
    val broken = arrayOf(byteArrayOf(-1))
    val logits = FloatArray(Slm.vocabSize(model))
    val found = linkedMapOf<String, Int?>()
    fun call(name: String, work: () -> Any?) {
        found[name] = try {
            work()
            null
        } catch (thrown: SlmException) {
            thrown.status
        }
    }
    call("task without a path") { SlmText.openTask(null) }
    call("task of no file") { SlmText.openTask("$file.no") }
    call("task of another file") { SlmText.openTask(File(folder, "model/model.slm").path) }
    call("no task's fields") { SlmText.fields(0) }
    call("no task's labels") { SlmText.labels(0) }
    call("no task's prompts") { SlmText.checkPrompts(0) }
    call("encoder of no task") { SlmText.newEncoder(0) }
    call("encode with none") { SlmText.encode(0, text[0], false) }
    call("encode null") { SlmText.encode(encoder, null, false) }
    call("encode bytes") { SlmText.encode(encoder, broken[0], true) }
    call("encode nothing") { SlmText.encode(encoder, ByteArray(0), false) }
    call("speller of no task") { SlmText.newSpeller(0) }
    call("spell with none") { SlmText.spell(0, 1) }
    call("spell no token") { listOf(-1, Int.MAX_VALUE, Int.MIN_VALUE).forEach { SlmText.spell(speller, it) } }
    call("end with none") { SlmText.spellEnd(0) }
    call("chooser of no task") { SlmText.newChooser(0) }
    call("begin with none") { SlmText.begin(0, text) }
    call("give before it begins") { SlmText.give(chooser, logits) }
    call("decision before it begins") { SlmText.decision(chooser) }
    call("begin with null") { SlmText.begin(chooser, null) }
    call("begin with a null") { SlmText.begin(chooser, arrayOf<ByteArray?>(null)) }
    call("begin with no field") { SlmText.begin(chooser, emptyArray()) }
    call("begin with fields") { SlmText.begin(chooser, text + text) }
    call("begin with bytes") { SlmText.begin(chooser, broken) }
    SlmText.begin(chooser, text)
    call("give null") { SlmText.give(chooser, null) }
    call("give few") { SlmText.give(chooser, FloatArray(0)) }
    call("give with none") { SlmText.give(0, logits) }
    call("give no numbers") { SlmText.give(chooser, FloatArray(logits.size) { Float.NaN }) }
    call("decision with none") { SlmText.decision(0) }
    call("decision of a search not done") { SlmText.decision(chooser) }
    call("decider of no model") { SlmDecider.open(0, task, 0, 0, null, 0f) }
    call("decider of no task") { SlmDecider.open(model, 0, 0, 0, null, 0f) }
    call("decider below no probability") { SlmDecider.open(model, task, 0, 0, null, Float.NaN) }
    call("decider of no threads") { SlmDecider.open(model, task, 0, -1, null, 0f) }
    call("decider of no prefix") { SlmDecider.open(model, task, 0, 0, "$file.no", 0f) }
    call("decider of another prefix") { SlmDecider.open(model, task, 0, 0, file, 0f) }
    call("classify with none") { SlmDecider.classify(0, text) }
    call("classify null") { SlmDecider.classify(decider, null) }
    call("classify a null") { SlmDecider.classify(decider, arrayOf<ByteArray?>(null)) }
    call("classify no field") { SlmDecider.classify(decider, emptyArray()) }
    call("classify many fields") { SlmDecider.classify(decider, Array(100_000) { text[0] }) }
    call("classify bytes") { SlmDecider.classify(decider, broken) }
    val long = arrayOf("word ".repeat(9000).encodeToByteArray())
    call("classify beyond the context") { SlmDecider.classify(decider, long) }
    call("cancel none") { SlmDecider.cancel(0) }
    SlmDecider.cancel(decider)
    call("classify when cancelled") { SlmDecider.classify(decider, text) }
    call("test none") { SlmDecider.selfTest(0) }
    call("prompt of none") { SlmDecider.promptIds(0) }
    call("log-probability of none") { SlmDecider.logprob(0, 0) }
    call("log-probability of no label") { check(SlmDecider.logprob(decider, -1).isNaN()) }
    call("log-probability beyond the labels") { check(SlmDecider.logprob(decider, Int.MAX_VALUE).isNaN()) }
    call("classify after all that") { check(SlmDecider.classify(decider, text).probability > 0) }
    hostileAnswers(::call, decider, writer, logits)
    SlmText.freeWriter(writer)
    SlmText.freeChooser(chooser)
    SlmText.freeSpeller(speller)
    SlmText.freeEncoder(encoder)
    SlmDecider.close(decider)
    Slm.close(model)
    SlmText.closeTask(task)
    listOf(
        SlmText::freeWriter,
        SlmText::freeChooser,
        SlmText::freeSpeller,
        SlmText::freeEncoder,
        SlmDecider::close,
        SlmText::closeTask,
    ).forEach { it(0) }
    return found
}

private fun hostileAnswers(call: (String, () -> Any?) -> Unit, decider: Long, writer: Long, logits: FloatArray) {
    val text = arrayOf("a".encodeToByteArray())
    val broken = arrayOf(byteArrayOf(-1))
    val long = arrayOf("word ".repeat(9000).encodeToByteArray())
    fun sampling(
        temperature: Float = 0f,
        topP: Float = 0f,
        topK: Int = 0,
        maxTokens: Int = 0,
        stops: Array<ByteArray?>? = emptyArray(),
    ) = SlmSampling(temperature, topP, topK, maxTokens, -1, stops)
    // Of either kind, the same calls.
    val begins = mapOf<String, (Array<ByteArray?>?, SlmSampling?) -> Any?>(
        "answer" to { fields, how -> SlmDecider.beginAnswer(decider, fields, how) },
        "writer" to { fields, how -> SlmText.beginAnswer(writer, fields, how, 1000) },
    )
    call("answer before it begins") { SlmDecider.nextPiece(decider) }
    call("writer before it begins") { SlmText.write(writer, logits) }
    call("ids before it begins") { check(SlmText.answerIds(writer).size + SlmText.answerLogprobs(writer).size == 0) }
    for ((name, begin) in begins) {
        call("$name of null") { begin(null, null) }
        call("$name of a null") { begin(arrayOf(null), null) }
        call("$name of no field") { begin(emptyArray(), null) }
        call("$name of many fields") { begin(Array(100_000) { text[0] }, null) }
        call("$name of bytes") { begin(arrayOf(broken[0]), null) }
        call("$name beyond the context") { begin(arrayOf(long[0]), null) }
        val fields = arrayOf<ByteArray?>(text[0])
        call("$name at a temperature below 0") { begin(fields, sampling(temperature = -1f)) }
        call("$name at no temperature") { begin(fields, sampling(temperature = Float.NaN)) }
        call("$name at an endless temperature") { begin(fields, sampling(temperature = Float.POSITIVE_INFINITY)) }
        call("$name of more than all") { begin(fields, sampling(topP = 1.5f)) }
        call("$name of fewer than none") { begin(fields, sampling(topK = Int.MIN_VALUE)) }
        call("$name up to no token") { begin(fields, sampling(maxTokens = -1)) }
        call("$name with no stops") { begin(fields, sampling(stops = null)) }
        call("$name with a null to stop") { begin(fields, sampling(stops = arrayOf(text[0], null))) }
        call("$name with nothing to stop") { begin(fields, sampling(stops = arrayOf(text[0], ByteArray(0)))) }
        call("$name with bytes to stop") { begin(fields, sampling(stops = arrayOf(broken[0]))) }
    }
    call("answer with none") { SlmDecider.beginAnswer(0, text, null) }
    call("piece of none") { SlmDecider.nextPiece(0) }
    call("piece after what failed") { SlmDecider.nextPiece(decider) }
    call("ids of none") { SlmDecider.answerIds(0) }
    call("log-probabilities of none") { SlmDecider.answerLogprobs(0) }
    SlmDecider.cancel(decider)
    call("answer when cancelled") { SlmDecider.beginAnswer(decider, text, null) }
    SlmDecider.beginAnswer(decider, text, null)
    SlmDecider.nextPiece(decider)
    call("piece when cancelled") { SlmDecider.cancel(decider).also { SlmDecider.nextPiece(decider) } }
    call("piece after that") { SlmDecider.nextPiece(decider) }
    SlmDecider.classify(decider, text)
    call("piece after a decision") { SlmDecider.nextPiece(decider) }
    call("answer of many stops") {
        val stops = Array<ByteArray?>(10_000) { "never $it".encodeToByteArray() }
        SlmDecider.beginAnswer(decider, text, sampling(maxTokens = 1, stops = stops))
        check(SlmDecider.nextPiece(decider).done == SlmPiece.LENGTH)
        check(SlmDecider.nextPiece(decider).run { done == SlmPiece.LENGTH && id == -1 && this.text.isEmpty() })
    }
    call("writer of no task") { SlmText.newWriter(0) }
    call("writer with none") { SlmText.beginAnswer(0, text, null, 1000) }
    call("write with none") { SlmText.write(0, logits) }
    call("ids of no writer") { SlmText.answerIds(0) }
    call("log-probabilities of no writer") { SlmText.answerLogprobs(0) }
    call("writer without room") { SlmText.beginAnswer(writer, text, null, 0) }
    call("writer with less than that") { SlmText.beginAnswer(writer, text, null, Int.MIN_VALUE) }
    for ((name, odd) in mapOf(
        "null" to null,
        "few" to FloatArray(0),
        "no numbers" to FloatArray(logits.size) { Float.NaN },
    )) {
        SlmText.beginAnswer(writer, text, null, 1000)
        call("write $name") { SlmText.write(writer, odd) }
    }
    call("write after what failed") { SlmText.write(writer, logits) }
    SlmText.beginAnswer(writer, text, sampling(maxTokens = 1), Int.MAX_VALUE)
    logits[5] = 1f
    call("write one") { check(SlmText.write(writer, logits).run { done == SlmPiece.LENGTH && id == 5 }) }
    call("write beyond the end") { SlmText.write(writer, logits) }
}
