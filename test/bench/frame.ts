/** How much is measured: `quick` only shows that a bench works, its figures mean nothing. */
export type Size = 'quick' | 'usual' | 'full'

/** Another gateway, for informational rows beside ours: it must be told to ask the bench's provider. */
export interface Peer {
  /** Of its OpenAI-compatible surface, without `/chat/completions`. */
  readonly url: string
  readonly key: string
  readonly model: string
  /** Where the bench's provider listens. */
  readonly providerPort: number
}

export interface BenchOptions {
  readonly size: Size
  readonly peer?: Peer
  /** The folder of the programs `initdb` and `postgres` of another Postgres than the npm package's. */
  readonly postgres?: string | undefined
  /** Says on standard error what is being done: standard output is for results. */
  readonly say: (what: string) => void
}

/** One figure of ours, beside the baseline's where there is one. Figures are medians over the repetitions. */
export interface Row {
  readonly case: string
  readonly metric: string
  readonly ours: number
  readonly baseline: number | null
  /** The median of the repetitions' own ratios: each compares neighbours in time. */
  readonly ratio: number | null
  readonly target: number | null
  /** What is held against the target: `ratio` where there is one, else `ours`. */
  readonly bound: 'at least' | 'at most' | null
  readonly ok: boolean
  /** The smallest and the largest repetition: of the ratio where there is one, else of ours. */
  readonly spread: readonly [number, number]
}

export interface Bench {
  readonly name: string
  readonly says: string
  /** Throws when its own database does not verify clean. */
  run(options: BenchOptions): Promise<readonly Row[]>
}

export interface Target {
  readonly bound: 'at least' | 'at most'
  readonly value: number
}

interface Figures {
  readonly case: string
  readonly metric: string
  /** One figure of each repetition. */
  readonly ours: readonly number[]
  readonly baseline?: readonly number[]
  readonly target?: Target
}

export function rowOf(figures: Figures): Row {
  const { ours, baseline, target } = figures
  const ratios = baseline?.map((each, index) => (ours[index] ?? Number.NaN) / each)
  const judged = ratios ?? ours
  return {
    case: figures.case,
    metric: figures.metric,
    ours: median(ours),
    baseline: baseline ? median(baseline) : null,
    ratio: ratios ? median(ratios) : null,
    target: target?.value ?? null,
    bound: target?.bound ?? null,
    ok: target === undefined || meets(median(judged), target),
    spread: [Math.min(...judged), Math.max(...judged)],
  }
}

function meets(figure: number, { bound, value }: Target): boolean {
  return bound === 'at least' ? figure >= value : figure <= value
}

function median(values: readonly number[]): number {
  return percentile(values, 0.5)
}

/** Nearest rank. */
export function percentile(values: readonly number[] | Float64Array, share: number): number {
  const sorted = Float64Array.from(values).toSorted()
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}
