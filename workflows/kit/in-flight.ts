/** What has begun and is not over. */
export class InFlight {
  readonly #promises = new Set<Promise<unknown>>()

  get isBusy(): boolean {
    return this.#promises.size > 0
  }

  /** What is in flight is waited for at the end, and a failure that nobody awaits does not fail the workflow task. */
  track<Result>(promise: Promise<Result>): Promise<Result> {
    this.#promises.add(promise)
    const forget = (): void => void this.#promises.delete(promise)
    promise.then(forget, forget)
    return promise
  }

  /** Waits until there is nothing. */
  async settled(): Promise<void> {
    while (this.#promises.size > 0) await Promise.allSettled(this.#promises)
  }
}
