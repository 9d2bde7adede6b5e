import { againOnceOver, attend, cancelAfter, pauseForAWhile, terminateAfter, type RunOwner } from './run-owners.ts'

/** What a run is made of here. */
export interface Place {
  readonly question: string
  readonly corpusId: string
  readonly datasetId: string
  readonly random: (below: number) => number
}

type Body = Readonly<Record<string, unknown>>

export interface RunKind {
  readonly name: string
  /** Of each twenty. */
  readonly count: number
  /** What is posted to `/runs`. */
  readonly request: (place: Place) => Body
  /** What its owner does while it lives. */
  readonly owner: RunOwner
}

const AMPLE = '0.05'
const UNFAIR = { mayRepeat: 3 } as const

/** Every kind of run there is in a storm. Another one is a row more; the counts add up to twenty. */
export const RUN_KINDS: readonly RunKind[] = [
  {
    name: 'patient: paused for money until the end',
    count: 1,
    request: (place) => research(place, '0.0012', { onExhausted: 'pause' }),
    owner: attend({ topUp: '0.02', from: 0.8 }),
  },
  {
    name: 'two balances, three routes',
    count: 1,
    request: (place) => ({
      ...research(place, AMPLE, { onExhausted: 'cancel', model: 'research' }),
      envelope: { pockets: [pocket('credit', '0.002'), pocket('direct', AMPLE)] },
    }),
    owner: attend({}),
  },
  {
    name: 'topped up',
    count: 1,
    request: (place) => research(place, '0.003', { onExhausted: 'pause' }),
    owner: attend({ topUp: '0.003' }),
  },
  {
    name: 'topped up, clamped',
    count: 1,
    request: (place) =>
      research(place, '0.003', { onExhausted: 'pause', tight: { policy: 'clamp', floorTokens: 100, parallelism: 3 } }),
    owner: attend({ topUp: '0.002' }),
  },
  {
    name: 'exhausted, ends',
    count: 1,
    request: (place) => research(place, '0.004', { onExhausted: 'cancel' }),
    owner: attend({}),
  },
  {
    name: 'exhausted, wraps up',
    count: 1,
    request: (place) => ({
      ...research(place, AMPLE, { onExhausted: 'cancel' }),
      envelope: { pockets: [pocket('direct', '0.006')], wrapUpPercent: 30 },
    }),
    owner: attend({}),
  },
  {
    name: 'exhausted, goes on cheaper',
    count: 1,
    request: (place) =>
      research(place, '0.004', { onExhausted: 'downgrade', downgrade: { model: 'economy', then: 'pause' } }),
    owner: attend({ topUp: '0.002' }),
  },
  {
    name: 'cancelled at once',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'pause', model: 'research' }),
    owner: cancelAfter({ withinMs: 9_000, mode: 'now' }),
  },
  {
    name: 'cancelled with a wrap-up',
    count: 1,
    request: (place) => ({
      ...research(place, AMPLE, { onExhausted: 'pause' }),
      envelope: { pockets: [pocket('direct', AMPLE)], wrapUpPercent: 20 },
    }),
    owner: cancelAfter({ withinMs: 9_000, mode: 'wrap_up' }),
  },
  {
    name: 'a provider that fails',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'cancel', model: 'shaky', ...UNFAIR }),
    owner: attend({}),
  },
  {
    name: 'paused and resumed by its owner',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'cancel' }),
    owner: pauseForAWhile({ withinMs: 6_000, forMs: 5_000 }),
  },
  {
    name: 'repeats nothing unasked',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'cancel', mayRepeat: 0 }),
    owner: attend({ answer: 'repeat' }),
  },
  {
    name: 'forked once it is over',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'cancel', ...UNFAIR }),
    owner: againOnceOver('fork'),
  },
  {
    name: 'done anew once it is over',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'cancel', ...UNFAIR }),
    owner: againOnceOver('rerun'),
  },
  {
    name: 'terminated in Temporal',
    count: 1,
    request: (place) => research(place, AMPLE, { onExhausted: 'pause' }),
    owner: terminateAfter({ withinMs: 9_000 }),
  },
  {
    name: 'rows',
    count: 1,
    request: (place) => rows(place, AMPLE, { onExhausted: 'cancel', ...UNFAIR }),
    owner: attend({}),
  },
  {
    name: 'rows, topped up',
    count: 1,
    request: (place) => rows(place, '0.0008', { onExhausted: 'pause', ...UNFAIR }),
    owner: attend({ topUp: '0.0012' }),
  },
  {
    name: 'rows, a provider that fails',
    count: 1,
    request: (place) => rows(place, AMPLE, { onExhausted: 'cancel', model: 'shaky', ...UNFAIR }),
    owner: attend({}),
  },
  {
    name: 'children and grandchildren',
    count: 1,
    request: (place) => family(place, AMPLE, { onExhausted: 'cancel', ...UNFAIR }),
    owner: attend({}),
  },
  {
    name: 'children, topped up',
    count: 1,
    request: (place) => family(place, '0.0004', { onExhausted: 'pause', ...UNFAIR }),
    owner: attend({ topUp: '0.0006' }),
  },
]

function research({ question, corpusId, random }: Place, amount: string, options: Body): Body {
  return run('research', { question, corpusId, breadth: 2 + random(4) }, amount, options)
}

function rows({ datasetId }: Place, amount: string, options: Body): Body {
  return run(
    'map',
    { datasetId, prompt: 'What is said of {{number}}: {{text}}', maxTokens: 40, concurrency: 4 },
    amount,
    options,
  )
}

function family({ random }: Place, amount: string, options: Body): Body {
  return run('family', { children: 2, steps: 1 + random(3), generations: 2 }, amount, options)
}

function run(agent: string, input: Body, amount: string, options: Body): Body {
  const envelope = { pockets: [pocket('direct', amount)] }
  return { agent, model: 'steady', input, envelope, pauseDeadlineSeconds: 3_600, ...options }
}

function pocket(balanceClass: 'direct' | 'credit', amount: string): Body {
  return { balanceClass, amount: { amount, currency: 'USD' } }
}
