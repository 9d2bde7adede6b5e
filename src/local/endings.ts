interface Stoppable {
  stop(): Promise<unknown>
}

/** What has to be undone, the last thing first. */
export class Endings {
  readonly #ends: (() => Promise<unknown>)[] = []
  #ended: Promise<void> | undefined

  add(end: () => Promise<unknown>): void {
    this.#ends.push(end)
  }

  /** Waits for things that start at the same time. When one fails, the others are waited for too, so that they end. */
  async addAll<const Starts extends readonly Promise<Stoppable | undefined>[]>(
    starts: Starts,
  ): Promise<{ -readonly [Index in keyof Starts]: Awaited<Starts[Index]> }> {
    for (const start of await Promise.allSettled(starts)) {
      if (start.status !== 'fulfilled') continue
      const started = start.value
      if (started !== undefined) this.add(() => started.stop())
    }
    return Promise.all(starts)
  }

  /** Goes on after an end that fails, and reports the first failure. Asked again, it waits for the same end. */
  end(): Promise<void> {
    this.#ended ??= this.#endAll()
    return this.#ended
  }

  async #endAll(): Promise<void> {
    const failures: unknown[] = []
    for (const end of this.#ends.toReversed()) await end().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }
}
