/** Work that is done again and again, one round after another. */
export interface Rounds {
  /** There is something to do: look at once. */
  poke(): void
  /** Resolves when the round that is under way is over. */
  stop(): Promise<void>
}

/** Runs rounds each `everyMs`, and at once when poked or when a round left something to do. */
export function startRounds(everyMs: number, oneRound: (isStopped: () => boolean) => Promise<boolean>): Rounds {
  let running: Promise<void> | undefined
  let isPoked = false
  let isStopped = false

  async function rounds(): Promise<void> {
    do {
      isPoked = false
      if (await oneRound(() => isStopped)) isPoked = true
    } while (isPoked && !isStopped)
    running = undefined
  }

  function look(): void {
    if (isStopped) return
    isPoked = true
    running ??= rounds()
  }

  const timer = setInterval(look, everyMs)
  return {
    poke: look,
    async stop() {
      isStopped = true
      clearInterval(timer)
      await running
    },
  }
}
