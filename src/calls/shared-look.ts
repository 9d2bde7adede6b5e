/** Looks at something that changes, for many who ask at the same time. */
export interface SharedLook<Value> {
  /** By a look that begins after this is asked: whoever asks while one is under way shares the next one. */
  of(key: string, look: () => Promise<Value>): Promise<Value>
}

interface UnderWay<Value> {
  readonly now: Promise<Value>
  next: Promise<Value> | undefined
}

export function createSharedLook<Value>(): SharedLook<Value> {
  const underWay = new Map<string, UnderWay<Value>>()

  function begin(key: string, look: () => Promise<Value>): Promise<Value> {
    const now = look()
    const entry: UnderWay<Value> = { now, next: undefined }
    underWay.set(key, entry)
    const end = () => {
      if (entry.next === undefined) underWay.delete(key)
    }
    now.then(end, end)
    return now
  }

  return {
    of(key, look) {
      const entry = underWay.get(key)
      if (!entry) return begin(key, look)
      const again = () => begin(key, look)
      entry.next ??= entry.now.then(again, again)
      return entry.next
    },
  }
}
