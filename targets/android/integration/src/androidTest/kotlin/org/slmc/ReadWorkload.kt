package org.slmc

import java.io.File
import org.json.JSONArray
import org.json.JSONObject

internal fun readWorkload(file: File): Workload {
    val lines = file.readText().split("\n").filter { it.isNotBlank() }.map { JSONObject(it) }
    val header = lines.first()
    if (header.optInt("slmc_workload") != 1) throw BadWorkloadException("$file is no workload of version 1")
    val choices = header.getJSONObject("choices")
    return Workload(
        digest = header.getString("digest"),
        choices = choices.keys().asSequence().associateWith { name ->
            choices.getJSONArray(name).let { sets -> List(sets.length()) { ids(sets.getJSONArray(it)) } }
        },
        items = lines.drop(1).map(::item),
    )
}

private fun item(json: JSONObject): Item {
    val id = json.getString("id")
    val given = json.optJSONObject("fields") ?: throw BadWorkloadException("item $id has no fields")
    val fields = given.keys().asSequence().associateWith { given.getString(it) }
    val inputIds = ids(json.getJSONArray("input_ids"))
    return when (val mode = json.getString("mode")) {
        "choose" -> ChooseItem(id, fields, inputIds, json.getString("choices"))
        "generate" -> {
            if (json.getBoolean("ignore_end")) throw BadWorkloadException("item $id asks to write on beyond the end")
            GenerateItem(id, fields, inputIds, json.getInt("max_tokens"))
        }
        else -> throw BadWorkloadException("item $id asks to $mode")
    }
}

private fun ids(json: JSONArray) = List(json.length()) { json.getInt(it) }
