import { keyConstraintsSchema, keyScopesSchema } from '#contracts/stored.ts'
import { sql, type Kysely } from 'kysely'
import { BlockList, isIP } from 'node:net'
import { hashOf, type KeyHolder } from './api-key.ts'
import type { Database } from './schema.ts'

export type KeyLookUp =
  | { readonly ok: true; readonly holder: KeyHolder }
  /** `unknown`: revoked, or never made. */
  | { readonly ok: false; readonly reason: 'unknown' | 'expired' }

interface Row {
  readonly keyId: string
  readonly organisationId: string
  readonly projectId: string | null
  readonly scopes: unknown
  readonly constraints: unknown
  readonly allowedIps: readonly string[] | null
  readonly isRevoked: boolean
  readonly isExpired: boolean
  readonly runId: string | null
  readonly isRunOver: boolean
}

/**
 * The owner of a secret, if it opens anything now.
 *
 * It is looked for by the SHA-256 of the secret, in an index whose comparisons do not take constant time. That is enough:
 * how long they take depends on the beginnings of digests, and nobody can choose a secret for the beginning of its digest
 * without trying as many as that beginning has values, nor tell from a digest which of 2^256 secrets it is of. No secret is
 * ever compared with another.
 */
export async function callerOf(db: Kysely<Database>, secret: string): Promise<KeyLookUp> {
  const { rows } = await sql<Row>`
    select k.id as "keyId", k.organisation_id as "organisationId", k.project_id as "projectId", k.scopes, k.constraints,
      k.allowed_ips::text[] as "allowedIps", k.revoked_at is not null as "isRevoked",
      coalesce(k.expires_at <= clock_timestamp(), false) as "isExpired",
      k.run_id as "runId", r.finished_at is not null as "isRunOver"
    from api_key k left join run r on r.id = k.run_id where k.hash = ${hashOf(secret)}`.execute(db)
  const [row] = rows
  if (!row) return { ok: false, reason: 'unknown' }
  const { scopes, constraints, allowedIps, isRevoked, isExpired, runId, isRunOver, ...caller } = row
  if (isExpired) return { ok: false, reason: 'expired' }
  if (isRevoked) return { ok: false, reason: 'unknown' }
  const holder = {
    ...caller,
    scopes: keyScopesSchema.parse(scopes),
    constraints: keyConstraintsSchema.parse(constraints),
    addresses: allowedIps && addressesOf(allowedIps),
    run: runId === null ? null : { id: runId, isOver: isRunOver },
  }
  return { ok: true, holder }
}

function addressesOf(networks: readonly string[]): BlockList {
  const addresses = new BlockList()
  for (const network of networks) {
    const [address = '', prefix] = network.split('/')
    const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
    addresses.addSubnet(address, prefix === undefined ? (family === 'ipv6' ? 128 : 32) : Number(prefix), family)
  }
  return addresses
}

/** Whether a key may be used from an address; what a proxy says may be any text. */
export function mayAskFrom({ addresses }: KeyHolder, ip: string): boolean {
  if (!addresses) return true
  const family = isIP(ip)
  return family !== 0 && addresses.check(ip, family === 6 ? 'ipv6' : 'ipv4')
}

/** Whether a key is still good, for streams that outlive the request's own check. */
export async function isKeyValid(db: Kysely<Database>, keyId: string): Promise<boolean> {
  const { rows } = await sql`
    select from api_key where id = ${keyId} and revoked_at is null
      and coalesce(expires_at > clock_timestamp(), true)`.execute(db)
  return rows.length > 0
}
