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
    SlmText.freeChooser(chooser)
    SlmText.freeSpeller(speller)
    SlmText.freeEncoder(encoder)
    SlmDecider.close(decider)
    Slm.close(model)
    SlmText.closeTask(task)
    listOf(SlmText::freeChooser, SlmText::freeSpeller, SlmText::freeEncoder, SlmDecider::close, SlmText::closeTask)
        .forEach { it(0) }
    return found
}
