import { PROVIDER_NAME } from '#contracts/api-provider.ts'
import { Problem } from '#contracts/codes.ts'
import { sha256 } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import { lockVersion, type Versioned } from '#db/version.ts'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Transaction } from 'kysely'
import { z } from 'zod'
import { isId } from './access.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What it shows or changes has versions, which collide: its answers say theirs, and changes may say which they mean. */
    versioned?: Versioned
  }
  interface FastifyRequest {
    version: number | null
  }
}

/** For the documentation; the hooks and `changeOf` below read them. */
export const ifMatchHeaders = z.looseObject({
  'if-match': z
    .string()
    .optional()
    .meta({ description: '`ETag` of what is to be changed: if it is another by now, nothing is changed (412).' }),
})
export const ifNoneMatchHeaders = z.looseObject({
  'if-none-match': z.string().optional().meta({
    description: '`ETag` of what is known already: if it is still the same, the answer is 304 without a body.',
  }),
})

/** What is changed, as its address says. */
const named = z.looseObject({ id: z.string().optional(), name: z.string().optional() })
const versionIn = z.looseObject({ version: z.int() })
const DIGEST_LENGTH = 16
const JSON_TYPE = 'application/json'

/**
 * `"<version>-<digest>"`, or the digest alone of what has no versions. The version counts changes that people make; the digest
 * is of all that is shown, the time of a key's last use and the money in a limit's window among it.
 */
export function tellVersions(app: FastifyInstance): void {
  app.decorateRequest('version', null)
  app.addHook('preSerialization', async (request, _reply, payload: unknown) => {
    if (request.routeOptions.config.versioned) request.version = versionIn.safeParse(payload).data?.version ?? null
    return payload
  })
  app.addHook('onSend', async (request, reply, payload: unknown) => {
    const type = reply.getHeader('content-type')
    if (reply.statusCode >= 300 || typeof payload !== 'string' || !String(type).startsWith(JSON_TYPE)) return payload
    const { version, method, headers } = request
    if (method !== 'GET' && version === null) return payload
    const digest = sha256(payload).toString('hex').slice(0, DIGEST_LENGTH)
    const tag = version === null ? digest : `${version}-${digest}`
    reply.header('etag', `"${tag}"`)
    if (method !== 'GET' || !names(headers['if-none-match'], (known) => known === tag)) return payload
    reply.code(304).removeHeader('content-type')
    return ''
  })
}

/**
 * The version of what a request changes, under its lock: first of all that it locks, whether it says which version it means or
 * not, so that no two of them wait for each other in a circle.
 */
export async function versionToChange(
  trx: Transaction<Database>,
  request: FastifyRequest,
): Promise<number | undefined> {
  const { versioned } = request.routeOptions.config
  if (versioned === undefined) return undefined
  const { id = '', name = '' } = named.parse(request.params)
  if (versioned === 'provider')
    return PROVIDER_NAME.test(name) ? lockVersion(trx, { what: versioned, id: name }) : undefined
  return versioned === 'catalog' || isId(id) ? lockVersion(trx, { what: versioned, id }) : undefined
}

/**
 * After the change, so that what is foreign or gone is answered as that; its transaction ends with it.
 *
 * @throws Problem when the request meant another version
 */
export function refuseChanged(request: FastifyRequest, version: number | undefined): void {
  const { versioned } = request.routeOptions.config
  const asked = request.headers['if-match']
  if (versioned === undefined || asked === undefined) return
  if (names(asked, (known) => known.split('-')[0] === String(version))) return
  throw new Problem('changed_meanwhile', `The ${versioned} is not the one that If-Match names any more.`, {
    remedy: 'Read it again, and send the change with the ETag of what you have read.',
  })
}

/** Whether a list of ETags has one that fits; `*` fits all. Weak ones are taken for what they are of. */
function names(header: string | undefined, fits: (tag: string) => boolean): boolean {
  return (header ?? '').split(',').some((each) => {
    const tag = each.trim().replace(/^W\//, '')
    return tag === '*' || (/^"[^"]*"$/.test(tag) && fits(tag.slice(1, -1)))
  })
}
