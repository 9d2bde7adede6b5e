/** Ends one request when its caller wants no more of it, or when its time is up. */
export interface AttemptClock {
  /** Aborted when the request must end, for whatever reason. */
  readonly controller: AbortController
  /** The answer has begun: from now on only the whole is bounded. */
  noteFirstByte(): void
  /** Why the request had to end; null as long as it need not. */
  ending(): AttemptEnding | null
  /** Must be called when the request is over: nothing may outlive it. */
  stop(): void
}

type AttemptEnding =
  | { readonly kind: 'aborted' }
  | { readonly kind: 'timeout'; readonly of: 'first byte' | 'whole answer'; readonly afterMs: number }

export interface AttemptTimes {
  readonly signal: AbortSignal
  readonly timeoutMs: number
  readonly firstByteTimeoutMs?: number | undefined
}

/**
 * Timers and listeners of its own in place of `AbortSignal.timeout` and `any`: those live until they fire, minutes after
 * the request they were made for.
 */
export function startClock({ signal, timeoutMs, firstByteTimeoutMs }: AttemptTimes): AttemptClock {
  const controller = new AbortController()
  let reason: AttemptEnding | null = null
  const end = (ending: AttemptEnding) => {
    reason ??= ending
    controller.abort()
  }
  const abort = () => end({ kind: 'aborted' })
  const whole = setTimeout(() => end({ kind: 'timeout', of: 'whole answer', afterMs: timeoutMs }), timeoutMs)
  const first =
    firstByteTimeoutMs !== undefined && firstByteTimeoutMs < timeoutMs
      ? setTimeout(() => end({ kind: 'timeout', of: 'first byte', afterMs: firstByteTimeoutMs }), firstByteTimeoutMs)
      : undefined
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  return {
    controller,
    noteFirstByte: () => clearTimeout(first),
    ending: () => reason,
    stop() {
      clearTimeout(whole)
      clearTimeout(first)
      signal.removeEventListener('abort', abort)
    },
  }
}
