import { formatNano, parseDecimal, type Amount } from '#domain/money.ts'
import { ANY_MODEL } from '#contracts/names.ts'
import type { AttemptReport, CallReport, Report } from '#contracts/report.ts'
import { inWords } from './event-line.ts'
import { printTable } from './print-table.ts'
import type { Screen } from './screen.ts'
import { formatTable, NOTHING, type Column } from './text-table.ts'

const CALL_COLUMNS: readonly Column[] = [
  { title: 'call' },
  { title: 'try' },
  { title: 'from' },
  { title: 'tokens', align: 'right' },
  { title: 'held', align: 'decimal' },
  { title: 'captured', align: 'decimal' },
  { title: 'released', align: 'decimal' },
  { title: 'what happened' },
]

const POCKET_COLUMNS: readonly Column[] = [
  { title: 'envelope' },
  { title: 'funded', align: 'decimal' },
  { title: 'spent', align: 'decimal' },
  { title: 'returned', align: 'decimal' },
  { title: 'balance', align: 'decimal' },
]

const SPEND_COLUMNS: readonly Column[] = [
  { title: 'spent' },
  { title: 'in all', align: 'decimal' },
  { title: 'useful', align: 'decimal' },
  { title: 'wasted', align: 'decimal' },
  { title: 'billed', align: 'decimal' },
  { title: 'estimated', align: 'decimal' },
  { title: 'unknown', align: 'decimal' },
]

/** Prints what a run cost: each call with all its attempts, then the money by balance, then the envelope. */
export function printReport(screen: Screen, report: Report): void {
  printCalls(screen, report)
  screen.line()
  printTable(
    screen,
    SPEND_COLUMNS,
    report.totals.map((spend) => {
      const { spent, useful, wasted, billed, estimated, unknown } = spend
      return [
        `${spend.balanceClass} ${spend.currency}`,
        ...[spent, useful, wasted, billed, estimated, unknown].map(money),
      ]
    }),
  )
  screen.line()
  printTable(
    screen,
    POCKET_COLUMNS,
    report.envelope.pockets.map((pocket) => {
      const { funded, spent, returned, free } = pocket
      return [`${pocket.balanceClass} ${pocket.currency}`, ...[funded, spent, returned].map(money), free.amount]
    }),
  )
  if (report.holds) {
    const { p50, p95, most } = report.holds
    screen.line(
      screen.paint(
        'dim',
        `  cost as a share of its hold: half of the attempts up to ${p50}, 95 % up to ${p95}, at most ${most}`,
      ),
    )
  }
  if (report.context) printContext(screen, report.context)
  printRepeats(screen, report.likelyRepeats)
  for (const line of treeLines(report.children)) screen.line(line)
  if (report.stop) {
    const { limit, needed, free } = report.stop
    screen.line(`  stopped by the ${limit}: ${needed.amount} ${needed.currency} needed, ${free.amount} free`)
  }
}

/** How the prompts grew, when they did. */
function printContext(screen: Screen, { calls, first, last, largest }: NonNullable<Report['context']>): void {
  if (calls < 2) return
  const most = `${largest.inputTokens} at the most (${largest.path})`
  screen.line(screen.paint('dim', `  input tokens per call: from ${first} to ${last}, ${most}`))
}

/** What a client sent again by itself, and what that cost. */
function printRepeats(screen: Screen, groups: Report['likelyRepeats']): void {
  if (groups.length === 0) return
  const count = groups.reduce((sum, { repeats }) => sum + repeats.length, 0)
  const which = count === 1 ? '1 call likely repeats another' : `${count} calls likely repeat others`
  const charged = groups.flatMap((group) => group.charged)
  const byMoney = Map.groupBy(charged, (each) => `${each.charged.currency} ${each.balanceClass}`)
  const costs = Array.from(byMoney, ([money, some]) => `${formatNano(sumOf(some))} ${money}`)
  const line = `  ${which}, as clients send by themselves, for ${costs.join(' + ') || 'nothing'}: an Idempotency-Key saves that`
  screen.line(screen.paint('yellow', line))
}

function sumOf(charged: Report['likelyRepeats'][number]['charged']): bigint {
  const parsed = charged.map((each) => parseDecimal(each.charged.amount))
  return parsed.reduce((total, each) => (each.ok ? total + each.nano : total), 0n)
}

/** Child runs, each below its parent, with what it spent. */
function treeLines(children: Report['children'], depth = 0): readonly string[] {
  return children.flatMap((child) => {
    const spent = child.totals.map((total) => `${total.spent.amount} ${total.spent.currency} ${total.balanceClass}`)
    const end = child.reason === null || child.state === 'completed' ? child.state : `${child.state}: ${child.reason}`
    const line = `  ${'  '.repeat(depth)}└ ${child.path} · ${child.agent} · ${spent.join(' + ') || 'nothing'} · ${end} · ${child.runId}`
    return [line, ...treeLines(child.children, depth + 1)]
  })
}

/** One line for each attempt and refusal, with what came of it; what is not an answer is marked. */
export function printCalls(screen: Screen, { model, calls }: Pick<Report, 'model' | 'calls'>): void {
  const rows = calls.flatMap((call) =>
    call.attempts.map((attempt, index) => ({ attempt, cells: cellsOf(call, index, attempt) })),
  )
  const [title = '', ...lines] = formatTable(
    CALL_COLUMNS,
    rows.map(({ cells }) => cells),
  )
  screen.line(screen.paint('dim', `  ${title}`))
  for (const [index, { attempt }] of rows.entries()) {
    const line = `  ${lines[index] ?? ''}`
    screen.line(attempt.use === 'useful' ? line : screen.paint('yellow', line))
  }
  for (const call of calls.filter(({ attempts }) => attempts.length === 0)) {
    const isReused = call.reusedFrom !== null
    const line = `  ${call.path}: ${isReused ? 'a stored answer, at no cost' : (call.stopDetail ?? 'nothing was tried')}`
    screen.line(isReused ? line : screen.paint('yellow', line))
  }
  const others = new Set(calls.map((call) => call.model).filter((name) => name !== model))
  const which = model === ANY_MODEL ? 'catalog models' : 'other catalog models'
  if (others.size > 0) screen.line(`  ${which} asked for: ${[...others].join(', ')}`)
}

function cellsOf(call: CallReport, index: number, attempt: AttemptReport): readonly string[] {
  const { tokens, held, captured, released } = attempt
  return [
    index === 0 ? call.path : '',
    `${attempt.number} ${attempt.route}`,
    attempt.balanceClass,
    tokens ? `${tokens.input}+${tokens.output}` : '',
    ...(attempt.kind === 'refusal' ? ['', '', ''] : [held, captured, released].map(money)),
    `${outcomeOf(attempt)}${nextOf(call, index)}`,
  ]
}

function outcomeOf(attempt: AttemptReport): string {
  const { outcome, bound, certainty, use } = attempt
  if (bound) {
    const unit = bound.measure === 'money' ? '' : ` ${bound.measure}`
    return `hold of ${bound.needed}${unit} refused by the ${bound.by}, ${bound.free} free`
  }
  if (outcome === null) return 'in flight'
  const labels = [certainty, use].filter((label) => label !== null).join(', ')
  return `${inWords(outcome)}${labels === '' ? '' : ` · ${labels}`}${extrasOf(attempt)}`
}

/** What an outcome led to: a retry, a fallback, or the end of the call. */
function nextOf(call: CallReport, index: number): string {
  const next = call.attempts[index + 1]
  if (next) return ` → ${next.why === 'first' ? 'asked again' : next.why}`
  return call.state === 'open' && call.stopReason !== null ? ` → ${inWords(call.stopReason)}` : ''
}

function extrasOf({ overage, corrected }: AttemptReport): string {
  const beyond = isZero(overage) ? '' : ` · ${overage.amount} beyond its hold`
  return beyond + (isZero(corrected) ? '' : ` · corrected by ${corrected.amount}`)
}

function money(amount: Amount): string {
  return isZero(amount) ? NOTHING : amount.amount
}

function isZero({ amount }: Amount): boolean {
  return /^-?0(\.0*)?$/.test(amount)
}
