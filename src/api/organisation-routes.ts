import {
  newOrganisationSchema,
  organisationListSchema,
  organisationRequestSchema,
  organisationSchema,
  type OrganisationView,
} from '#contracts/api-organisation.ts'
import { pageQuerySchema } from '#contracts/api-page.ts'
import type { Caller } from '#db/api-key.ts'
import { newId } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import { getOrganisation, makeOrganisation, renameOrganisation, type Organisation } from '#db/organisation.ts'
import type { Kysely } from 'kysely'
import { z } from 'zod'
import { callerOfRequest, notFound, tenantDb } from './access.ts'
import type { Api, RouteDeps } from './api-deps.ts'
import { answerChange, answerPost } from './idempotency.ts'
import { shownOnce } from './key-routes.ts'
import { makeSecret } from './key-secret.ts'
import { pageAsked } from './page.ts'

const idParams = z.object({ id: z.string() })
const tags = ['Organisations']

/** Operators see and name their own organisation; the installation's make others. */
export function organisationRoutes(app: Api, deps: RouteDeps): void {
  app.get(
    '/organisations',
    {
      config: { access: 'operator' },
      schema: {
        tags,
        summary: 'The organisation of the key',
        querystring: pageQuerySchema,
        response: { 200: organisationListSchema },
      },
    },
    async (request) => {
      const { organisationId } = callerOfRequest(request)
      const { after } = pageAsked(request)
      // There is one, so nothing stands on a page after it.
      const found =
        after === undefined ? [await theOrganisation(tenantDb(request), callerOfRequest(request), organisationId)] : []
      return { organisations: found.map(viewOf), nextCursor: null }
    },
  )

  app.get(
    '/organisations/:id',
    {
      config: { access: 'operator', versioned: 'organisation' },
      schema: { tags, summary: 'An organisation', params: idParams, response: { 200: organisationSchema } },
    },
    async (request) => viewOf(await theOrganisation(tenantDb(request), callerOfRequest(request), request.params.id)),
  )

  organisationChangeRoutes(app, deps)
}

function organisationChangeRoutes(app: Api, { nowMs }: RouteDeps): void {
  app.post(
    '/organisations',
    {
      config: {
        access: 'operator',
        scope: 'installation',
        audit: 'organisation.create',
      },
      schema: {
        tags,
        summary: 'Make an organisation with its first operator key',
        description:
          "For the installation's operators: a key with the scope `installation`. The secret is answered once. A repeated " +
          'request is answered without it.',
        body: organisationRequestSchema,
        response: { 201: newOrganisationSchema },
      },
    },
    (request, reply) =>
      answerPost({ request, reply, schema: newOrganisationSchema }, async (trx) => {
        const { keyId: madeBy } = callerOfRequest(request)
        const secret = makeSecret('op')
        const ids = { organisationId: newId(nowMs()), keyId: newId(nowMs()) }
        const made = await makeOrganisation(trx, { ...ids, name: request.body.name, secret, madeBy })
        const key = shownOnce(made.key, secret)
        const view = viewOf(made.organisation)
        return {
          status: 201,
          body: { ...view, operatorKey: key.body },
          kept: { ...view, operatorKey: key.kept ?? key.body },
          audit: { projectId: null, after: view },
        }
      }),
  )

  app.patch(
    '/organisations/:id',
    {
      config: {
        access: 'operator',
        versioned: 'organisation',
        audit: 'organisation.change',
      },
      schema: {
        tags,
        summary: 'Give an organisation another name',
        params: idParams,
        body: organisationRequestSchema,
        response: { 200: organisationSchema },
      },
    },
    (request, reply) =>
      answerChange({ request, reply }, async (trx) => {
        const before = await theOrganisation(trx, callerOfRequest(request), request.params.id)
        const changed = await renameOrganisation(trx, { id: before.id, name: request.body.name })
        return { status: 200, body: viewOf(changed), audit: { projectId: null, before: viewOf(before) } }
      }),
  )
}

/** A foreign one is as unknown as one that is not there. */
async function theOrganisation(db: Kysely<Database>, caller: Caller, id: string): Promise<Organisation> {
  const found = id === caller.organisationId ? await getOrganisation(db, id) : undefined
  if (!found) throw notFound('organisation', id)
  return found
}

function viewOf({ id, name, createdAt, version }: Organisation): OrganisationView {
  return { id, name, createdAt: createdAt.toISOString(), version }
}
