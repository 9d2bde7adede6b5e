/**
 * How long a whole answer's bill, or the mark of its end, is waited for: they come with the answer, or a moment later. An
 * upstream that forgets to end its stream would keep its caller until the time of the whole attempt is up.
 */
const REST_MS = 10_000

/** Ends one request when its caller wants no more of it, or when its time is up. */
export interface AttemptClock {
  /** Aborted when the request must end, for whatever reason. */
  readonly controller: AbortController
  /** The answer has begun: from now on only the whole is bounded. */
  noteFirstByte(): void
  /** The answer is whole, and something came: nothing more is waited for long. */
  noteRest(): void
  /** Why the request had to end; null as long as it need not. */
  ending(): AttemptEnding | null
  /** Must be called when the request is over: nothing may outlive it. */
  stop(): void
}

type AttemptEnding =
  | { readonly kind: 'aborted' }
  | {
      readonly kind: 'timeout'
      readonly of: 'first byte' | 'whole answer' | 'end of the stream'
      readonly afterMs: number
    }

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
  let rest: NodeJS.Timeout | undefined
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  return {
    controller,
    noteFirstByte: () => clearTimeout(first),
    noteRest() {
      clearTimeout(rest)
      rest = setTimeout(() => end({ kind: 'timeout', of: 'end of the stream', afterMs: REST_MS }), REST_MS)
    },
    ending: () => reason,
    stop() {
      clearTimeout(whole)
      clearTimeout(first)
      clearTimeout(rest)
      signal.removeEventListener('abort', abort)
    },
  }
}
