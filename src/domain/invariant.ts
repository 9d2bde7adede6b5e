/** A bug in Purser itself: never an input's fault, never the world's. */
class InvariantError extends Error {
  override readonly name = 'InvariantError'
}

/** Stops at once when something that must hold does not. Use for bugs only: refusals are returned, failures throw codes. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new InvariantError(message)
}
