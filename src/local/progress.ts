/** Where progress is shown: standard error, or a stand-in that keeps the lines. */
export interface ProgressOutput {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

/** Tells what the task is doing right now; shown behind the elapsed time. */
export type Say = (detail: string) => void

export interface ProgressOptions {
  readonly output?: ProgressOutput
  /** Tasks that end earlier print nothing. */
  readonly quietMs?: number
  /** Time between two lines where the output is not a terminal. */
  readonly lineEveryMs?: number
}

const QUIET_MS = 2_000
const LINE_EVERY_MS = 10_000
const REDRAW_MS = 500
const DEFAULT_COLUMNS = 100

/**
 * Runs a task and shows that it moves: on a terminal one line that is rewritten, elsewhere a line every ten seconds.
 * Standard output stays free for results.
 */
export async function withProgress<Result>(
  label: string,
  task: (say: Say) => Promise<Result>,
  options: ProgressOptions = {},
): Promise<Result> {
  const { output = process.stderr, quietMs = QUIET_MS, lineEveryMs = LINE_EVERY_MS } = options
  const start = performance.now()
  const rewrites = output.isTTY === true
  let detail = ''
  let shown = false

  const draw = () => {
    const text = `${label}: ${elapsed(start)}${detail === '' ? '' : `, ${detail}`}`
    shown = true
    output.write(rewrites ? `\r\u001b[2K${text.slice(0, (output.columns ?? DEFAULT_COLUMNS) - 1)}` : `${text}\n`)
  }
  let timer: NodeJS.Timeout | undefined
  const quiet = setTimeout(() => {
    draw()
    timer = setInterval(draw, rewrites ? REDRAW_MS : lineEveryMs)
    timer.unref()
  }, quietMs)
  quiet.unref()

  let outcome = 'failed'
  try {
    const result = await task((text) => {
      detail = text
    })
    outcome = 'done'
    return result
  } finally {
    clearTimeout(quiet)
    clearInterval(timer)
    if (shown) output.write(`${rewrites ? '\r\u001b[2K' : ''}${label}: ${outcome} after ${elapsed(start)}\n`)
  }
}

function elapsed(start: number): string {
  const seconds = Math.round((performance.now() - start) / 1_000)
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}
