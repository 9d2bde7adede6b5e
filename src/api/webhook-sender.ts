import type { DeliveryOutcome, DueDelivery } from '#db/webhook-delivery.ts'
import { noteOutcome, takeDue, webhookSecretOf } from '#db/webhook-delivery.ts'
import { fanOut } from '#db/webhook-fan-out.ts'
import type { Database } from '#db/schema.ts'
import type { SecretKeys } from '#db/secret-box.ts'
import type { FastifyBaseLogger } from 'fastify'
import type { Kysely } from 'kysely'
import { createHmac } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { isIP } from 'node:net'
import { isPublicAddress, lookupPublic } from './public-address.ts'
import { startRounds, type Rounds } from './rounds.ts'

const ROUND_MS = 500
/** Sent at once by one process; and of one project, so that addresses that never answer keep no others waiting. */
const MOST_AT_ONCE = 64
const MOST_OF_PROJECT = 8
const TIMEOUT_MS = 10_000
/** Longer than a try takes: whoever took it has told how it went, or is dead. */
const LEASE_MS = 30_000
/** Before each further try: half a day in all, then it is a dead letter. */
const WAITS_MS = [5_000, 30_000, 120_000, 600_000, 1_800_000, 7_200_000, 21_600_000, 14_400_000] as const
/** Until a secret is looked at again that cannot be read here; another process may read it before. */
const UNREADABLE_MS = 30_000
/** Of an answer that is no success, kept for whoever looks why. */
const MOST_ERROR = 300

export interface SenderOptions {
  readonly db: Kysely<Database>
  readonly log: Pick<FastifyBaseLogger, 'warn'>
  readonly nowMs: () => number
  /** Whether addresses of private networks may be told. */
  readonly allowsPrivate: boolean
  /** Reads what deliveries are signed with. */
  readonly secrets: SecretKeys | undefined
}

/** Tells webhooks what happened, until they hear it. Any number of processes may do so at once. */
export function startWebhookSender(options: SenderOptions): Rounds {
  const { db, log, nowMs } = options
  const outbox = new Outbox(options)
  const telling = startRounds(ROUND_MS, () => outbox.tellDue(() => telling.poke()))
  const asking = startRounds(ROUND_MS, async () => {
    try {
      const hasMore = await fanOut(db, nowMs())
      telling.poke()
      return hasMore
    } catch (error) {
      log.warn({ err: error }, 'nothing new can be told to webhooks')
      return false
    }
  })
  return {
    poke: () => asking.poke(),
    async stop() {
      await asking.stop()
      await telling.stop()
      await outbox.end()
    },
  }
}

/** What one process is sending. */
class Outbox {
  readonly #options: SenderOptions
  readonly #open = new Set<Promise<void>>()
  readonly #ofProject = new Map<string, number>()
  readonly #unreadable: Unreadable = new Set()

  constructor(options: SenderOptions) {
    this.#options = options
  }

  /** Begins what is due, as far as there are places. @param whenFree told when a place is free again */
  async tellDue(whenFree: () => void): Promise<boolean> {
    const { db, log } = this.#options
    const limit = MOST_AT_ONCE - this.#open.size
    if (limit === 0) return false
    try {
      const limits = { limit, ofProject: MOST_OF_PROJECT, sending: this.#ofProject }
      for (const delivery of await takeDue(db, { ...limits, leaseMs: LEASE_MS })) this.#begin(delivery, whenFree)
    } catch (error) {
      log.warn({ err: error }, 'webhooks cannot be told')
    }
    return false
  }

  /** Resolves when nothing is being sent. */
  async end(): Promise<void> {
    await Promise.all(this.#open)
  }

  #begin(delivery: DueDelivery, whenFree: () => void): void {
    const { projectId } = delivery
    this.#count(projectId, 1)
    const sending = this.#tell(delivery).finally(() => {
      this.#count(projectId, -1)
      this.#open.delete(sending)
      whenFree()
    })
    this.#open.add(sending)
  }

  async #tell(delivery: DueDelivery): Promise<void> {
    const { db, log } = this.#options
    try {
      await noteOutcome(db, await deliver(delivery, this.#options, this.#unreadable))
    } catch (error) {
      log.warn({ err: error }, 'it cannot be noted how a webhook was told: it is told again')
    }
  }

  #count(projectId: string, change: 1 | -1): void {
    const count = (this.#ofProject.get(projectId) ?? 0) + change
    if (count === 0) this.#ofProject.delete(projectId)
    else this.#ofProject.set(projectId, count)
  }
}

/** The webhooks whose secrets could not be read when they were to be told last. */
type Unreadable = Set<string>

async function deliver(
  delivery: DueDelivery,
  options: SenderOptions,
  unreadable: Unreadable,
): Promise<DeliveryOutcome> {
  const { id, tries } = delivery
  const retryInMs = WAITS_MS[tries - 1]
  const again = retryInMs === undefined ? {} : { retryInMs }
  const secret = secretOf(delivery, options, unreadable)
  if (!secret) {
    const error = 'its secret cannot be read here'
    return { id, wasHeard: false, status: null, error, retryInMs: UNREADABLE_MS, isUntried: true }
  }
  try {
    const { status, text } = await post(delivery, { ...options, secret })
    const wasHeard = status >= 200 && status < 300
    return { id, wasHeard, status, error: wasHeard ? null : text, ...(!wasHeard && again) }
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    return { id, wasHeard: false, status: null, error: message.slice(0, MOST_ERROR), ...again }
  }
}

/** Why it cannot be read is for operators, who are told once: a project is told that it cannot. */
function secretOf(delivery: DueDelivery, { secrets, log }: SenderOptions, unreadable: Unreadable): Buffer | undefined {
  const { webhookId } = delivery
  try {
    const secret = webhookSecretOf(secrets, delivery)
    unreadable.delete(webhookId)
    return secret
  } catch (error) {
    if (!unreadable.has(webhookId)) log.warn({ err: error, webhookId }, 'the secret of a webhook cannot be read')
    unreadable.add(webhookId)
    return undefined
  }
}

/** The headers of Standard Webhooks (standardwebhooks.com): the signature covers id, time and body. */
function signed(id: string, body: string, { secret, nowMs }: { readonly secret: Buffer; readonly nowMs: number }) {
  const timestamp = Math.floor(nowMs / 1_000).toString()
  const signature = createHmac('sha256', secret).update(`${id}.${timestamp}.${body}`).digest('base64')
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${signature}` }
}

interface Heard {
  readonly status: number
  readonly text: string
}

/** Redirects are not followed: they would lead past the check of the address. */
function post(
  { id, url, body }: DueDelivery,
  { nowMs, allowsPrivate, secret }: SenderOptions & { readonly secret: Buffer },
): Promise<Heard> {
  const target = new URL(url)
  const host = target.hostname.replace(/^\[|\]$/g, '')
  if (!allowsPrivate && isIP(host) !== 0 && !isPublicAddress(host)) {
    return Promise.reject(new Error(`${host} is no address of the public internet`))
  }
  const text = JSON.stringify(body)
  const send = target.protocol === 'https:' ? httpsRequest : httpRequest
  const { promise, resolve, reject } = Promise.withResolvers<Heard>()
  const outgoing = send(
    target,
    {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(text),
        'user-agent': 'purser-webhooks',
        ...signed(id, text, { secret, nowMs: nowMs() }),
      },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(!allowsPrivate && { lookup: lookupPublic }),
    },
    (incoming) => {
      let heard = ''
      incoming.setEncoding('utf8')
      incoming.on('data', (piece: string) => {
        if (heard.length < MOST_ERROR) heard += piece
      })
      incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text: heard.slice(0, MOST_ERROR) }))
      incoming.on('error', reject)
    },
  )
  outgoing.on('error', reject)
  outgoing.end(text)
  return promise
}
