import { USUAL_GATEWAY_LIMITS, type GatewayLimits } from '#contracts/gateway-limits.ts'
import { providerSettingsSchema, type ProviderSettings, type ProxySettings } from '#contracts/provider-settings.ts'
import { TASK_QUEUE } from '#contracts/names.ts'
import { parseDecimal } from '#domain/money.ts'
import { z } from 'zod'

/** Zero keeps for ever. */
const days = z.coerce.number().int().min(0).max(36_500)
const count = (least: number, most: number) => z.coerce.number().int().min(least).max(most)
const port = z.coerce.number().int().min(0).max(65_535)

const providersSchema = z.array(providerSettingsSchema).superRefine((providers, context) => {
  for (const [index, { name }] of providers.entries()) {
    if (providers.findIndex((each) => each.name === name) < index)
      context.addIssue({
        code: 'custom',
        path: [index, 'name'],
        message: `${name} stands twice: routes name a provider`,
      })
  }
})

/** Addresses and networks, with commas between them. */
const proxies = z
  .string()
  .default('')
  .transform((text) => text.split(',').flatMap((each) => each.trim() || []))
  .pipe(z.array(z.union([z.ipv4(), z.ipv6(), z.cidrv4(), z.cidrv6()])))

/** An empty variable is none, as curl has it. */
const proxy = z
  .literal('')
  .transform(() => undefined)
  .or(z.url({ protocol: /^https?$/ }))
  .optional()

function jsonText(otherwise: string) {
  return z
    .string()
    .default(otherwise)
    .transform((text, context) => {
      try {
        const parsed: unknown = JSON.parse(text)
        return parsed
      } catch {
        context.addIssue({ code: 'custom', message: 'is not JSON' })
        return z.NEVER
      }
    })
}

/** Money as a decimal string in the major unit, in nano. */
const nano = z.string().transform((text, context) => {
  const parsed = parseDecimal(text)
  if (parsed.ok) return parsed.nano
  context.addIssue({ code: 'custom', message: 'is not a decimal string in the major unit' })
  return z.NEVER
})

const environment = z.object({
  PURSER_DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }),
  PURSER_DATABASE_CONNECTIONS: z.coerce.number().int().min(1).max(200).default(12),
  PURSER_API_HOST: z.string().min(1).default('127.0.0.1'),
  PURSER_API_PORT: port.default(8080),
  PURSER_OPERATOR_KEY: z.string().min(20).optional(),
  PURSER_TRUSTED_PROXIES: proxies,
  PURSER_CATALOG: z.string().min(1).optional(),
  PURSER_PROVIDERS: jsonText('[]').pipe(providersSchema),
  http_proxy: proxy,
  HTTP_PROXY: proxy,
  https_proxy: proxy,
  HTTPS_PROXY: proxy,
  no_proxy: z.string().optional(),
  NO_PROXY: z.string().optional(),
  PURSER_LOST_COST: z.enum(['maximum', 'estimate']).default('maximum'),
  PURSER_KEEP_REFUSALS_DAYS: days.default(400),
  PURSER_KEEP_IDEMPOTENCY_DAYS: days.default(30),
  PURSER_KEEP_INSTANCES_DAYS: days.default(30),
  PURSER_APPROVAL_ABOVE: jsonText('{}').pipe(z.record(z.string().regex(/^[A-Z]{3}$/), nano)),
  PURSER_STRIPE_WEBHOOK_SECRET: z.string().min(16).optional(),
  PURSER_WEBHOOKS_PRIVATE: z.stringbool().default(false),
  PURSER_TASK_QUEUE: z.string().min(1).default(TASK_QUEUE),
  PURSER_DRAIN_TIMEOUT_MS: z.coerce.number().int().min(0).max(600_000).default(10_000),
  PURSER_GATEWAY_BODY_BYTES: count(1_024, 256 * 1024 * 1024).default(USUAL_GATEWAY_LIMITS.bodyBytes),
  PURSER_GATEWAY_REQUESTS: count(1, 1_000_000).default(USUAL_GATEWAY_LIMITS.requests),
  PURSER_GATEWAY_REQUESTS_OF_KEY: count(1, 1_000_000).default(USUAL_GATEWAY_LIMITS.requestsOfKey),
  PURSER_GATEWAY_FAILURES_OF_ADDRESS: count(1, 1_000_000).default(USUAL_GATEWAY_LIMITS.failuresOfAddress),
  TEMPORAL_ADDRESS: z.string().min(1).default('127.0.0.1:7233'),
  TEMPORAL_NAMESPACE: z.string().min(1).default('default'),
  PURSER_SEAL_KEY_FILE: z.string().min(1).optional(),
  PURSER_SEAL_ANCHOR_FILE: z.string().min(1).optional(),
  PURSER_SECRETS_KEY_FILE: z.string().min(1).optional(),
})

const verifyEnvironment = z.object({
  PURSER_DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }).optional(),
  PURSER_SEAL_KEY_FILE: z.string().min(1).optional(),
  PURSER_SEAL_PUBLIC_KEY_FILE: z.string().min(1).optional(),
  PURSER_SEAL_ANCHOR_FILE: z.string().min(1).optional(),
})

const migrationEnvironment = z.object({
  PURSER_ADMIN_DATABASE_URL: z.url({ protocol: /^postgres(ql)?$/ }),
  PURSER_OWNER_PASSWORD: z.string().min(1),
  PURSER_APP_PASSWORD: z.string().min(1),
})

/** Everything a server or worker process is told from outside. */
export interface Config {
  readonly database: { readonly url: string; readonly maxConnections: number }
  readonly api: {
    readonly host: string
    readonly port: number
    readonly operatorKey: string | undefined
    /** Whose `x-forwarded-for` is believed. */
    readonly trustedProxies: readonly string[]
  }
  /** Above how much a deposit waits for another operator, in nano by currency. */
  readonly approvalAbove: ReadonlyMap<string, bigint>
  readonly stripeSecret: string | undefined
  /** Whether webhooks may tell addresses of private networks. */
  readonly allowsPrivateWebhooks: boolean
  /** Path of the catalog to import at start; without it the newest imported one stays in force. */
  readonly catalogFile: string | undefined
  readonly providers: readonly ProviderSettings[]
  /** Through which providers are asked; undefined: directly. */
  readonly proxy: ProxySettings | undefined
  /** What an attempt is booked at whose answer died with its process. */
  readonly lostCost: 'maximum' | 'estimate'
  /** How long what is no part of the ledger is kept. */
  readonly retention: {
    readonly refusalsDays: number
    readonly idempotencyDays: number
    readonly instancesDays: number
  }
  readonly temporal: { readonly address: string; readonly namespace: string; readonly taskQueue: string }
  /** An API finishes its clients' calls for as long, too. */
  readonly worker: { readonly drainTimeoutMs: number }
  readonly gateway: GatewayLimits
  readonly seals: SealConfig
  /** The keys that encrypt what is stored and has to be read again; without them no secret is stored. */
  readonly secretsKeyFile: string | undefined
}

/** Both lie outside the database: whoever can write every table can write neither. */
export interface SealConfig {
  /** An Ed25519 private key in PEM; without it blocks are chained and not signed. */
  readonly keyFile: string | undefined
  /** Where each head is appended; without it the heads are in the database only. */
  readonly anchorFile: string | undefined
}

/** What `purser verify` is told from outside. */
export interface VerifyConfig {
  readonly databaseUrl: string | undefined
  /** A public key, or the private one, whose public half is taken. */
  readonly publicKeyFile: string | undefined
  readonly anchorFile: string | undefined
}

/** What a migration is told from outside: the URL of a superuser, and the passwords its two roles get. */
export interface MigrationConfig {
  readonly adminUrl: string
  readonly ownerPassword: string
  readonly appPassword: string
}

/** Thrown with all problems of the environment at once. */
class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

/** Reads the environment: the only place that does. Pure: takes it as an argument and touches nothing else. */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const isProxied = env['NODE_USE_ENV_PROXY'] === '1'
  const values = read(environment, isProxied ? env : withoutProxies(env))
  return Object.freeze({
    database: { url: values.PURSER_DATABASE_URL, maxConnections: values.PURSER_DATABASE_CONNECTIONS },
    api: {
      host: values.PURSER_API_HOST,
      port: values.PURSER_API_PORT,
      operatorKey: values.PURSER_OPERATOR_KEY,
      trustedProxies: values.PURSER_TRUSTED_PROXIES,
    },
    catalogFile: values.PURSER_CATALOG,
    approvalAbove: new Map(Object.entries(values.PURSER_APPROVAL_ABOVE)),
    stripeSecret: values.PURSER_STRIPE_WEBHOOK_SECRET,
    allowsPrivateWebhooks: values.PURSER_WEBHOOKS_PRIVATE,
    providers: values.PURSER_PROVIDERS,
    proxy: isProxied ? proxyOf(values) : undefined,
    lostCost: values.PURSER_LOST_COST,
    retention: {
      refusalsDays: values.PURSER_KEEP_REFUSALS_DAYS,
      idempotencyDays: values.PURSER_KEEP_IDEMPOTENCY_DAYS,
      instancesDays: values.PURSER_KEEP_INSTANCES_DAYS,
    },
    temporal: {
      address: values.TEMPORAL_ADDRESS,
      namespace: values.TEMPORAL_NAMESPACE,
      taskQueue: values.PURSER_TASK_QUEUE,
    },
    worker: { drainTimeoutMs: values.PURSER_DRAIN_TIMEOUT_MS },
    gateway: {
      bodyBytes: values.PURSER_GATEWAY_BODY_BYTES,
      requests: values.PURSER_GATEWAY_REQUESTS,
      requestsOfKey: values.PURSER_GATEWAY_REQUESTS_OF_KEY,
      failuresOfAddress: values.PURSER_GATEWAY_FAILURES_OF_ADDRESS,
    },
    seals: { keyFile: values.PURSER_SEAL_KEY_FILE, anchorFile: values.PURSER_SEAL_ANCHOR_FILE },
    secretsKeyFile: values.PURSER_SECRETS_KEY_FILE,
  })
}

const PROXIES: ReadonlySet<string> = new Set(['http_proxy', 'https_proxy', 'no_proxy'])

/** Whatever stands in these means nothing without the switch that node itself has for them. */
function withoutProxies(env: Readonly<Record<string, string | undefined>>): typeof env {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !PROXIES.has(name.toLowerCase())))
}

/** As node itself takes them for everything else that it asks: the lower case first. */
function proxyOf(values: z.output<typeof environment>): ProxySettings {
  return {
    http: values.http_proxy ?? values.HTTP_PROXY,
    https: values.https_proxy ?? values.HTTPS_PROXY,
    except: values.no_proxy ?? values.NO_PROXY,
  }
}

/** The same for a verification. */
export function loadVerifyConfig(env: Readonly<Record<string, string | undefined>>): VerifyConfig {
  const values = read(verifyEnvironment, env)
  return Object.freeze({
    databaseUrl: values.PURSER_DATABASE_URL,
    publicKeyFile: values.PURSER_SEAL_PUBLIC_KEY_FILE ?? values.PURSER_SEAL_KEY_FILE,
    anchorFile: values.PURSER_SEAL_ANCHOR_FILE,
  })
}

/** The same for the migration, which knows more than any process that serves. */
export function loadMigrationConfig(env: Readonly<Record<string, string | undefined>>): MigrationConfig {
  const values = read(migrationEnvironment, env)
  return Object.freeze({
    adminUrl: values.PURSER_ADMIN_DATABASE_URL,
    ownerPassword: values.PURSER_OWNER_PASSWORD,
    appPassword: values.PURSER_APP_PASSWORD,
  })
}

function read<Schema extends z.ZodType>(
  schema: Schema,
  env: Readonly<Record<string, string | undefined>>,
): z.output<Schema> {
  const parsed = schema.safeParse(env)
  if (parsed.success) return parsed.data
  const lines = parsed.error.issues.map((issue) => `  ${issue.path.join('.')}: ${issue.message}`)
  throw new ConfigError(`The environment does not configure Purser:\n${lines.join('\n')}`)
}
