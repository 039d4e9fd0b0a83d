/**
 * The client of lpfileshare, a server that shares files in LivePerson conversations. Begin with
 * {@link com.lpfileshare.LpFileShareClient}. The messages of the contract are in {@code
 * com.lpfileshare.v1}.
 */
package com.lpfileshare;
