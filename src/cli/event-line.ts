import type { EventView } from '#contracts/api-event.ts'
import type { Style } from './screen.ts'

/** What an event says to people. */
export interface EventLine {
  /** The call it is about, or `run`. */
  readonly subject: string
  readonly text: string
  readonly style?: Style
}

const PATH_WIDTH = 8
const ROUTE_WIDTH = 8
const OUTCOME_WIDTH = 13

/** One line for an event; undefined for those that say nothing new. */
export function describeEvent(event: EventView, path: string | undefined): EventLine | undefined {
  const subject = path ?? 'run'
  switch (event.kind) {
    case 'attempt.settled':
      return { subject, ...settledAttempt(event.data) }
    case 'attempt.refused': {
      const { asked, free } = event.data
      const text = `${routeOf(event.data)}  ${'hold refused'.padEnd(OUTCOME_WIDTH)}  ${amountOf(asked)} needed, ${amountOf(free)} free`
      return { subject, text, style: 'yellow' }
    }
    case 'attempt.corrected':
      return { subject, text: 'what an attempt cost was corrected', style: 'yellow' }
    case 'route.distrusted': {
      const { held, charged } = event.data
      const text = `${routeOf(event.data)}  ${'distrusted'.padEnd(OUTCOME_WIDTH)}  billed ${amountOf(charged)} where ${amountOf(held)} was held`
      return { subject, text, style: 'yellow' }
    }
    case 'run.running':
      return { subject, text: event.data['from'] === 'paused' ? 'goes on' : 'begins' }
    case 'run.paused':
      return { subject, text: `paused: ${textOf(event.data['detail'])}`, style: 'yellow' }
    case 'run.topped_up':
      return { subject, text: 'topped up' }
    case 'run.threshold': {
      const { percent, balanceClass, spent, funded } = event.data
      const text = `${Number(percent)} % of ${textOf(balanceClass)} spent: ${amountOf(spent)} of ${amountOf(funded)}`
      return { subject, text, style: 'yellow' }
    }
    case 'run.exhausted': {
      const { limit, needed, remaining, unit } = event.data
      const text = `refused by the ${textOf(limit)}: ${textOf(needed)} ${textOf(unit)} needed, ${textOf(remaining)} free`
      return { subject, text, style: 'yellow' }
    }
    case 'run.completed':
      return { subject, text: 'completed', style: 'green' }
    case 'run.queued':
      return undefined
    default:
      return { subject, text: otherEvent(event) }
  }
}

/** The line with its columns below those of the lines before it. */
export function formatEventLine({ subject, text }: EventLine, elapsedMs: number): string {
  return `${(elapsedMs / 1000).toFixed(1).padStart(5)} s  ${subject.padEnd(PATH_WIDTH)}  ${text}`
}

function settledAttempt(data: EventView['data']): Omit<EventLine, 'subject'> {
  const outcome = textOf(data['outcome'])
  const charged = amountOf(data['charged'])
  const money = /^0\.0*$/.test(charged) ? 'nothing charged' : `${charged} from ${textOf(data['balanceClass'])}`
  const certainty =
    data['certainty'] === 'billed' || data['certainty'] === null ? '' : ` (${textOf(data['certainty'])})`
  const text = `${routeOf(data)}  ${inWords(outcome).padEnd(OUTCOME_WIDTH)}  ${money}${certainty}`
  return outcome === 'answered' ? { text } : { text, style: 'yellow' }
}

function otherEvent(event: EventView): string {
  const detail = event.data['detail']
  const words = inWords(event.kind.replace(/^run\./, ''))
  return typeof detail === 'string' ? `${words}: ${detail}` : words
}

/** `rate_limited` as people write it. */
export function inWords(name: string): string {
  return name.replaceAll('_', ' ')
}

function routeOf(data: EventView['data']): string {
  return textOf(data['route']).padEnd(ROUTE_WIDTH)
}

/** Amounts come with their currency, or bare where none is known. */
function amountOf(value: unknown): string {
  if (typeof value === 'object' && value !== null && 'amount' in value) return textOf(value.amount)
  return textOf(value)
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '?'
}
