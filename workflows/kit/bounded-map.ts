/**
 * Runs `work` on every item, at most `limit` at a time, and gives the results in the order of the items. After a failure
 * nothing new begins; what has begun is waited for, and then the failure of the earliest item is thrown.
 */
export async function boundedMap<Item, Result>(
  items: readonly Item[],
  limit: number,
  work: (item: Item, index: number) => Promise<Result>,
): Promise<Result[]> {
  const results = new Map<number, Result>()
  const failures = new Map<number, unknown>()
  const queue = items.entries()
  async function lane(): Promise<void> {
    for (const [index, item] of queue) {
      try {
        results.set(index, await work(item, index))
      } catch (error) {
        failures.set(index, error)
      }
      if (failures.size > 0) return
    }
  }
  await Promise.all(Array.from({ length: Math.max(1, Math.min(limit, items.length)) }, lane))
  const [earliest] = [...failures].toSorted(([left], [right]) => left - right)
  if (earliest) throw earliest[1]
  return [...results].toSorted(([left], [right]) => left - right).map(([, result]) => result)
}
