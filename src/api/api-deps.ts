import type { MissedTimes } from '#contracts/api-schedule.ts'
import type { LostCostPolicy } from '#calls/lost-cost.ts'
import type { ApprovalAbove } from './deposit-booking.ts'
import type { AgentManifest } from '#contracts/agents.ts'
import type { SourceDocument, SplitDocument } from '#contracts/corpus.ts'
import type { ProviderSettings } from '#contracts/provider-settings.ts'
import type { Database } from '#db/schema.ts'
import type { SecretKeys } from '#db/secret-box.ts'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Kysely } from 'kysely'
import type { LogSettings } from './log.ts'

/** A provider of the environment, as it may be shown. */
export interface FixedProvider extends Omit<ProviderSettings, 'apiKey'> {
  readonly keyHint: string
}

/** What the API is given: it constructs nothing. */
export interface ApiDeps {
  readonly db: Kysely<Database>
  readonly agents: readonly AgentManifest[]
  /** Tells the dispatcher that a command waits. */
  readonly poke: () => void
  /** Whether Temporal answers. */
  readonly isTemporalUp: () => Promise<boolean>
  /** What Temporal counts of a schedule; undefined when it does not answer. Left out: nothing is known of it. */
  readonly missedTimes?: (scheduleId: string) => Promise<MissedTimes | undefined>
  /** Cuts an uploaded document into passages. */
  readonly splitDocument: (document: SourceDocument) => SplitDocument
  readonly nowMs: () => number
  /** Addresses and networks whose `x-forwarded-for` says who asks; left out: none, and the socket's peer asks. */
  readonly trustedProxies?: readonly string[]
  /** Providers of the environment here, without their keys; none when those are known to the workers only. */
  readonly fixedProviders: readonly FixedProvider[]
  /** Encrypts secrets that are stored; without it none is. */
  readonly secrets: SecretKeys | undefined
  /** Keys that open nothing, from one address in a minute. Left out: as many as usual. */
  readonly failuresOfAddress?: number
  /** What an attempt is booked at whose answer died with its process. */
  readonly lostCost: LostCostPolicy
  /** Above how much a deposit waits for another operator. */
  readonly approvalAbove: ApprovalAbove
  /** What Stripe signs its webhook with; without it nothing is taken from there. */
  readonly stripeSecret: string | undefined
  /** Whether webhooks may tell addresses of private networks. */
  readonly allowsPrivateWebhooks: boolean
  /** Standard output belongs to the ready line, so logs go elsewhere. */
  readonly log?: LogSettings
}

/** What a route is given: all but the database, which it has as its caller sees it (`tenantDb`). */
export type RouteDeps = Omit<ApiDeps, 'db'>

/** The server as routes see it: requests and answers typed by their schemas. */
export type Api = FastifyInstance<RawServerDefault, IncomingMessage, ServerResponse, FastifyBaseLogger, ZodTypeProvider>
