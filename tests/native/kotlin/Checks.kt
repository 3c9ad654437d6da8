package org.slmc

internal fun <T> same(found: T, wanted: T) = check(found == wanted) { "$found, not $wanted" }

internal suspend inline fun <reified T : Throwable> thrown(crossinline work: suspend () -> Any): T {
    try {
        work()
    } catch (failure: Throwable) {
        return failure as? T ?: throw failure
    }
    throw AssertionError("nothing was thrown")
}
